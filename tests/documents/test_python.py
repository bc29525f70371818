"""The Python of the pages runs, in a folder that holds a run: ``runs/first``."""

import subprocess
import sys
from pathlib import Path

import pytest
from mktestdocs import check_md_file

from documents.pages import PAGES, blocks, name_of

WITH_PYTHON = [page for page in PAGES if any(language == "python" for language, _ in blocks(page))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder, with a run like the first of the first tutorial."""
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run(
        [sys.executable, "-m", "fedaq", "run", "--engine", "local", "--rounds", "3", "--quiet",
         "--out", "runs/first"],
        cwd=folder,
        check=True,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    check_md_file(page, memory=True)
