"""Every link of a page, and every page that code names, leads somewhere."""

import re
from functools import cache
from pathlib import Path

import pytest

from documents.pages import PAGES, ROOT, files, name_of

LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL),
                          re.MULTILINE)  # fmt: skip
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_pages_that_code_names_exist() -> None:
    missing = []
    for path in files():
        if path.suffix in {".png", ".json", ".woff2"} or path == Path(__file__):
            continue
        for name in re.findall(r"(?<![\w/.])docs/[\w/-]+\.\w+", path.read_text(errors="ignore")):
            if not (ROOT / name).exists():
                missing.append(f"{name_of(path)}: {name}")
    assert missing == []


TOPS = "benchmarks|client|common|deploy|examples|lab|native|protos|server|tests"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{TOPS})/[\w/.-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        left += [(page.parent / link.partition("#")[0]).resolve()
                 for link in LINK.findall(page.read_text()) if ":" not in link]  # fmt: skip
    assert [name_of(page) for page in PAGES if page not in reached] == []
