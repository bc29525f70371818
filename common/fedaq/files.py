"""Files that we keep: a reader sees them whole or not at all, and they outlive a power cut."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Longer than anybody needs to read a file of ours.
_READ_S = 2.0
_POLL_S = 0.01


@contextmanager
def replacing(path: Path, *, private: bool = False, writer: str = "") -> Iterator[Path]:
    """Yield where to write a file; it then takes the place of `path` in one step, on the disk.

    Parameters
    ----------
    path : Path
    private : bool
        Only its owner may read it, at any moment.
    writer : str
        What tells this writer from others that may write the same file at the same time.

    Raises
    ------
    OSError
        If that fails; what was there before is still there.
    """
    partial = path.with_name(f"{path.name}{writer}.part")
    try:
        with naming(path):
            partial.unlink(missing_ok=True)
            if private:
                os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            yield partial
            with partial.open("r+b") as file:  # Windows flushes no file that is only read
                os.fsync(file.fileno())
            _replace(partial, path)
            flush_folder(path.parent)
    except BaseException:
        _drop(partial)
        raise


def write(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a small file as `replacing` does."""
    with replacing(path, private=private) as partial:
        partial.write_bytes(content)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are not there, on the disk."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in made:
        flush_folder(each.parent)


def flush_folder(folder: Path) -> None:
    """Bring the names of the files in a folder to the disk."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
        return
    with naming(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system say which file it is about: that of a write does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _replace(partial: Path, path: Path) -> None:
    end_s = time.monotonic() + _READ_S
    while True:
        try:
            partial.replace(path)
            return
        except PermissionError:  # Windows replaces no file that somebody reads
            if time.monotonic() > end_s:
                raise
            time.sleep(_POLL_S)


def _drop(partial: Path) -> None:
    """Give back the room that it takes, if that is possible: why it failed matters more."""
    with suppress(OSError):
        partial.unlink(missing_ok=True)
