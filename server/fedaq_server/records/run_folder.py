"""The folder of a run."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq_server.records.ledger import FILE, Ledger


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
    if (out / "run.json").exists() or (out / FILE).exists():
        raise UserError(
            f"--out {out}: a run is in there already; choose another folder, or go on with it: "
            f"--resume {out}"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made: {error.strerror}") from None
    try:
        yield out
    finally:
        with suppress(OSError):  # it is not empty
            out.rmdir()


@contextmanager
def new_run(out: Path | None, settings: Settings) -> Iterator[tuple[Settings, Ledger]]:
    """Yield the settings and the ledger of a new run.

    Raises
    ------
    UserError
        As `results_folder`.
    """
    with results_folder(out, settings) as folder, closing(Ledger(folder)) as ledger:
        ledger.begin(settings.model_dump(mode="json"))
        try:
            yield settings, ledger
        finally:
            if not ledger.rounds_done:
                ledger.discard()


@contextmanager
def resumed_run(
    folder: Path, settings_of: Callable[[dict[str, Any] | None], Settings]
) -> Iterator[tuple[Settings, Ledger]]:
    """Yield the settings and the ledger of a run to go on with, or to begin if there is none yet.

    Parameters
    ----------
    folder : Path
    settings_of : callable
        Returns the settings, given those that the run has begun with, or None.

    Raises
    ------
    UserError
        If the run is over, or its folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--resume {folder}: cannot be made: {error.strerror}") from None
    if (folder / "run.json").exists() and not (folder / FILE).exists():
        raise UserError(f"--resume {folder}: this run was made without a ledger; begin another")
    with closing(Ledger(folder)) as ledger:
        begun = ledger.settings()
        if ledger.is_over:
            raise UserError(f"--resume {folder}: the run is over after {ledger.rounds_done} rounds")
        settings = settings_of(begun)
        if begun is None:
            ledger.begin(settings.model_dump(mode="json"))
        yield settings, ledger
