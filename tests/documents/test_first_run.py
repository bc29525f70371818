"""The first tutorial, as somebody follows it: what it shows is what is printed."""

import re

import pytest

from documents.pages import ROOT, shell_lines
from system.commands import Commands

PAGE = ROOT / "docs" / "tutorials" / "first-run.md"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what the commands print; all clients in one process give the same, in less time."""
    commands = Commands(tmp_path_factory.mktemp("first-run"))
    printed = ""
    for line in shell_lines(PAGE):
        if not re.match(r"fedaq (?!server|client)", line):
            continue
        words = [
            *line.split()[1:],
            *(["--engine", "local"] if line.startswith("fedaq run") else []),
        ]
        done = commands.run(*words)
        assert done.code == 0, f"{line}: {done.err}"
        printed += done.out
    assert (commands.folder / "report" / "report.html").exists()
    return printed


def test_rounds_are_those_that_the_page_shows(printed: str) -> None:
    rounds = re.findall(r"^    (round \d+/10 .*)$", PAGE.read_text(), re.MULTILINE)
    assert len(rounds) == 3
    assert [line for line in rounds if f"{line}\n" not in printed] == []


def test_the_payload_is_what_the_page_says_of_it(printed: str) -> None:
    assert "round 3 from client-1" in printed
    assert len(re.findall(r"│ zero  │ 0 ", printed)) == 3
    assert re.search(r"energy\.budget_j +-", printed)
