"""The pages that people read, and what is in them."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Logbooks: what was tried stays as it was, commands of that day included.
RESEARCH = ROOT / "docs" / "research"


FOLDERS = (
    ".ci", ".github", "benchmarks", "client", "common", "deploy", "docs", "examples", "lab",
    "native", "protos", "server", "tests",
)  # fmt: skip


@cache
def files() -> list[Path]:
    """Every file of the project; git, which would know, is not everywhere."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    return [path for path in [*ROOT.glob("*"), *found]
            if path.is_file() and "__pycache__" not in path.parts]  # fmt: skip


PAGES = [path for path in files() if path.suffix == ".md"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of every block of code; an indented one has no language."""
    text = page.read_text()
    fence = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = [(match[1], match[2]) for match in fence.finditer(text)]
    indented = re.compile(r"(?:(?<=\n\n)|\A)((?: {4}[^\n]*\n|\n(?= {4}))+)")
    for match in indented.finditer(fence.sub("", text)):
        found.append(("", re.sub(r"^ {4}", "", match[1], flags=re.MULTILINE)))
    return found


def shell_lines(page: Path) -> list[str]:
    """Return the commands of a page, each on one line, without what they print."""
    lines = []
    for language, text in blocks(page):
        if language in {"", "sh"}:
            lines += re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [line.strip().removeprefix("$ ") for line in lines]
