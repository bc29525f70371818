"""The folder of a run."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fedaq.errors import SystemFaultError, UserError, refused, why
from fedaq.files import make_folder
from fedaq.settings import Settings
from fedaq_server.records.ledger import FILE, Ledger
from fedaq_server.records.lost import behind, refuse_if_lost, sign_of_a_run

log = logging.getLogger(__name__)


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
    if sign_of_a_run(out) is not None or (out / FILE).exists():
        raise UserError(
            f"--out {out}: a run is in there already; choose another folder, or go on with it: "
            f"--resume {out}"
        )
    try:
        make_folder(out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made: {why(error)}") from None
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
            with _told_how_to_go_on(ledger):
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
        If the run is over, its ledger is lost, or its folder cannot be used.
    SystemFaultError
        If the system refuses what the run needs.
    """
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(f"--resume {folder}: cannot be made: {why(error)}") from None
    refuse_if_lost(folder)
    with closing(Ledger(folder)) as ledger, _told_how_to_go_on(ledger):
        begun = ledger.settings()
        if ledger.is_over:
            raise UserError(f"--resume {folder}: the run is over after {ledger.rounds_done} rounds")
        settings = settings_of(begun)
        if begun is None:
            ledger.begin(settings.model_dump(mode="json"))
        later = behind(folder, ledger.rounds_done)
        if later is not None:
            log.warning(
                "%s is there, but the ledger ends with round %d: its %s-wal was lost; the run goes "
                "on from there", later, ledger.rounds_done, FILE,
            )  # fmt: skip
        yield settings, ledger


@contextmanager
def _told_how_to_go_on(ledger: Ledger) -> Iterator[None]:
    """Let an error of the system say what the run has, and how it goes on."""
    try:
        yield
    except (OSError, SystemFaultError) as error:
        said = str(error) if isinstance(error, SystemFaultError) else refused(error)
        if said is None:
            raise
        if ledger.rounds_done:
            said += (
                f"; {ledger.rounds_done} rounds are safe, then go on with: fedaq server --resume "
                f"{ledger.folder}"
            )
        raise SystemFaultError(said) from error
