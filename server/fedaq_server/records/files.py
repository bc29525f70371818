"""Files that a reader sees whole or not at all."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Longer than anybody needs to read a file of ours.
_READ_S = 2.0
_POLL_S = 0.01


@contextmanager
def replacing(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """Yield where to write a file; it then takes the place of `path` in one step.

    With `flush`, it is on the disk when this ends, whatever happens to the machine.
    """
    partial = path.with_name(path.name + ".part")
    yield partial
    if flush:
        with partial.open("r+b") as file:  # Windows flushes no file that is only read
            os.fsync(file.fileno())
    _replace(partial, path)
    if flush:
        _flush_folder(path.parent)


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


def _flush_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
