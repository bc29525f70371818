"""Files that take the place of others."""

import os
from pathlib import Path

import pytest

from fedaq import files
from fedaq.files import replacing


@pytest.fixture
def read_by_others(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For as many attempts as the list is long, as on Windows."""
    attempts: list[bool] = []
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if attempts and attempts.pop():
            raise PermissionError("it is open")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    return attempts


def test_who_reads_a_file_does_not_end_the_run(tmp_path: Path, read_by_others: list[bool]) -> None:
    file = tmp_path / "run.json"
    file.write_text("old")
    read_by_others.extend([True] * 3)
    with replacing(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
    assert (file.read_text(), read_by_others) == ("new", [])


def test_a_file_that_can_never_be_replaced(
    tmp_path: Path, read_by_others: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_READ_S", 0.05)
    read_by_others.extend([True] * 1000)
    with pytest.raises(PermissionError), replacing(tmp_path / "run.json") as partial:
        partial.write_text("new")


def test_a_system_that_opens_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECTORY")
    with replacing(tmp_path / "model") as partial:
        partial.write_text("new")
    assert (tmp_path / "model").read_text() == "new"
