"""What a page tells people to type exists: commands, options, settings, scripts, rules of make."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from documents.pages import PAGES, RESEARCH, ROOT, blocks, name_of, shell_lines
from fedaq.cli.app import application
from fedaq.errors import FedaqError
from fedaq.settings import load_settings

CHECKED = [page for page in PAGES if page.name != "CHANGELOG.md"]
GUIDES = [page for page in CHECKED if RESEARCH not in page.parents]
RULES = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
COMMAND = typer.main.get_command(application())
# Commands that containers run, and what stands for words of the reader's own.
PREFIXES = r"(?:sudo )?(?:/opt/fedaq/bin/)?"


def parsed(line: str) -> None:
    """Let the command line read a command, and do nothing with it."""
    words = shlex.split(line, comments=True)
    command, context = COMMAND, None
    while isinstance(command, typer.core.TyperGroup):
        name, *words = words
        if not words or words[0].startswith("-"):
            return
        context = command.make_context(name, list(words), parent=context, resilient_parsing=True)
        command = command.commands[words[0]]
    command.make_context(words[0], words[1:], parent=context)
    assigned = [word for option, word in pairwise(words) if option == "--set"]
    for word in words:
        if scheme := re.fullmatch(r"\w+:([\w.]+=.*)", word):
            assigned += scheme[1].split(",")
    load_settings(environment={}, assignments=assigned)


def simple_commands(line: str) -> Iterator[str]:
    """Yield the commands of a line of shell, without redirections."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in lexer:
        if skip:
            skip = False
        elif set(word) <= set("<>"):
            skip = True
            if words and words[-1] == "2":
                words.pop()
        elif set(word) <= set("|&;"):
            yield " ".join(words)
            words = []
        else:
            words.append(word)
    yield " ".join(words)


def commands_of(page: Path, program: str) -> list[str]:
    """Return all calls of a program on a page: those in blocks, and those within sentences."""
    pattern = re.compile(rf"(?:^|(?<!--entrypoint)[\s;&]){PREFIXES}({program} .*)")
    lines = [match[1] for line in shell_lines(page) if (match := pattern.search(line))]
    text = re.sub(r"^(```| {4}).*?$(?:.*?^```$)?", "", page.read_text(), flags=re.MULTILINE)
    lines += [" ".join(words.split()) for words in re.findall(rf"`({program} [^`]+)`", text)]
    return [next(simple_commands(line)) for line in lines]


def can_be_checked(line: str) -> bool:
    """Tell commands from words about them (`fedaq certs` or `fedaq COMMAND --help`)."""
    return not re.search(r"\.\.\.|\bCOMMAND\b|\$\(", line)


@pytest.mark.parametrize("page", CHECKED, ids=name_of)
def test_commands_exist_and_take_their_options(page: Path) -> None:
    wrong = []
    for line in commands_of(page, "fedaq"):
        if not can_be_checked(line):
            continue
        try:
            parsed(line)
        except (typer.TyperException, FedaqError, KeyError) as error:
            # A name alone, within a sentence, is no command to type.
            if not re.fullmatch(r"fedaq [\w-]+", line) or isinstance(error, KeyError):
                wrong.append(f"{line}: {error}")
        except typer.Exit:  # --help and --version
            pass
    assert wrong == []


@pytest.mark.parametrize("page", CHECKED, ids=name_of)
def test_scripts_and_rules_exist(page: Path) -> None:
    missing = []
    for line in commands_of(page, "make"):
        words = [word for word in shlex.split(line, comments=True)[1:] if "=" not in word]
        missing += [f"make {word}" for word in words if re.fullmatch(r"[a-z-]+", word)
                    and word not in RULES]  # fmt: skip
    for program in (r"(?:[\w/.]*)python", r"(?:[\w/.]*)pytest"):
        for line in commands_of(page, program):
            words = shlex.split(line, comments=True)[1:]
            missing += [word for word in words
                        if re.fullmatch(r"(?:benchmarks|tests)/[\w/.]+", word)
                        and not (ROOT / word).exists()]  # fmt: skip
    assert missing == []


@pytest.mark.parametrize("page", CHECKED, ids=name_of)
def test_shell_is_shell(page: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = "\n".join(
        text
        for language, text in blocks(page)
        if language == "sh" or (not language and re.match(r"[$ ]*(fedaq|make|pip|docker) ", text))
    )
    checked = subprocess.run(
        [bash, "-n"], input=script, capture_output=True, text=True, check=False
    )
    assert checked.stderr == ""


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_files_of_settings_are_read(page: Path, tmp_path: Path) -> None:
    for language, text in blocks(page):
        if language == "toml" and "[project]" not in text:
            tomllib.loads(text)
            (tmp_path / "settings.toml").write_text(text)
            load_settings(config=tmp_path / "settings.toml", environment={})


def test_a_wrong_option_is_found() -> None:
    for line in ("fedaq server --no-such", "fedaq run --set energy.budget=2", "fedaq trian"):
        with pytest.raises((typer.TyperException, FedaqError, KeyError)):
            parsed(line)
    assert commands_of(ROOT / "README.md", "fedaq")
