"""The folder of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedaq.errors import UserError
from fedaq.settings import Settings


@contextmanager
def results_folder(out: Path | None, settings: Settings) -> Iterator[Path]:
    """Make the folder of a run; if nothing came of the run, remove it again.

    Raises
    ------
    UserError
        If it holds a run already, or cannot be made.
    """
    if out is None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{settings.task}-{settings.scheme}"
        out = Path("runs") / name.replace(":", ".")
    if (out / "run.json").exists():
        raise UserError(f"--out {out}: a run is in there already; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made: {error.strerror}") from None
    try:
        yield out
    finally:
        with suppress(OSError):  # it is not empty
            out.rmdir()
