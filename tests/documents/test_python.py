"""The Python of the pages runs, in a folder that holds a run: ``runs/first``."""

from pathlib import Path

import pytest
from mktestdocs import check_md_file

from documents.pages import PAGES, blocks, name_of
from system.commands import Commands

WITH_PYTHON = [page for page in PAGES if any(language == "python" for language, _ in blocks(page))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder, with a run like the first of the first tutorial."""
    folder = tmp_path_factory.mktemp("pages")
    run = ("run", "--engine", "local", "--rounds", 3, "--quiet", "--out", "runs/first")
    assert Commands(folder).run(*run).code == 0
    return folder


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    check_md_file(page, memory=True)
