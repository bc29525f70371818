"""Files that a reader sees whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """Yield where to write a file; it then takes the place of `path` in one step.

    With `flush`, it is on the disk when this ends, whatever happens to the machine.
    """
    partial = path.with_name(path.name + ".part")
    yield partial
    if flush:
        _flush(partial)
    partial.replace(path)
    if flush:
        _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
