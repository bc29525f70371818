"""Files that take the place of others."""

import errno
import os
import stat
from pathlib import Path

import pytest

from fedaq import files
from fedaq.files import make_folder, replacing, write


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


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_no_part(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text("old")
    with pytest.raises(OSError, match="no room") as refusal, replacing(file) as partial:
        partial.write_text("ne")
        raise OSError(errno.ENOSPC, "no room")
    assert refusal.value.filename == str(file)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_and_its_folder_are_on_the_disk_before_and_after_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[object] = []
    real_replace = Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path / "file", b"new")
    assert steps == ["file", "rename", "folder"]
    steps.clear()
    make_folder(tmp_path / "a" / "b")
    assert steps == ["folder", "folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_secret_is_its_owners_at_every_moment(tmp_path: Path) -> None:
    with replacing(tmp_path / "key", private=True) as partial:
        partial.write_text("secret")
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_two_writers_do_not_take_each_others_part(tmp_path: Path) -> None:
    file = tmp_path / "cache"
    with replacing(file, writer=".1") as one, replacing(file, writer=".2") as two:
        one.write_text("one")
        two.write_text("two")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["one"]
