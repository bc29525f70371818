"""Where the Python of these pages runs: in a folder that holds a run, ``runs/first``."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder, with the first run of the first tutorial."""
    folder = tmp_path_factory.mktemp("docs")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "fedaq",
            "run",
            "--engine",
            "local",
            "--rounds",
            "3",
            "--quiet",
            "--out",
            "runs/first",
        ],
        cwd=folder,
        check=True,
    )
    return folder


@pytest.fixture(autouse=True)
def _at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
