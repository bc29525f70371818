"""What a folder shows of a run, and what the ledger beside it should have of that."""

import sqlite3
from contextlib import closing
from pathlib import Path

from fedaq.errors import UserError

LEDGER = "ledger.sqlite"
# The files of a run that has begun.
_SIGNS = (
    "round-*.safetensors", "held-*.bin", "differences*.bin", "start.safetensors",
    "model.safetensors", "run.json",
)  # fmt: skip


def sign_of_a_run(folder: Path) -> Path | None:
    """Return a file that only a run can have left in a folder, besides its ledger."""
    return next((path for sign in _SIGNS for path in sorted(folder.glob(sign))), None)


def refuse_if_lost(folder: Path) -> None:
    """Refuse to begin a run where there is one already, of which the ledger knows nothing.

    Raises
    ------
    UserError
        If so; it says what is missing.
    """
    sign = sign_of_a_run(folder)
    if sign is None:
        return
    ledger = folder / LEDGER
    if not ledger.exists():
        missing = f"{LEDGER} is missing"
    elif not ledger.stat().st_size:
        missing = f"{LEDGER} is empty"
    elif not _has_begun(ledger):
        log = folder / f"{LEDGER}-wal"
        missing = (
            f"{LEDGER} has none of it, for {log.name} is {'empty' if log.exists() else 'missing'}"
        )
    else:
        return
    raise UserError(
        f"--resume {folder}: {sign.name} of a run is there, but {missing}: put back what you have "
        f"of {LEDGER}*, or begin another run in another folder" + _from_its_model(folder)
    )


def behind(folder: Path, rounds_done: int) -> Path | None:
    """Return the model of a later round than the next one: the ledger once knew of more."""
    models = sorted(folder.glob("round-*.safetensors"))
    number = models[-1].stem.partition("-")[2] if models else ""
    return models[-1] if number.isdecimal() and int(number) > rounds_done + 1 else None


def from_last_model(folder: Path) -> str:
    """Return what to do where a run cannot go on."""
    return "put back a copy of the folder, or begin another run" + _from_its_model(folder)


def _from_its_model(folder: Path) -> str:
    models = sorted(folder.glob("round-*.safetensors")) or sorted(folder.glob("model.safetensors"))
    return f" with its last model: --from {models[-1]}" if models else ""


def _has_begun(ledger: Path) -> bool:
    """Tell whether it has the settings of a run, or is damaged, and so not lost."""
    try:
        with closing(sqlite3.connect(ledger)) as database:
            found = database.execute("SELECT 1 FROM run WHERE name = 'settings'").fetchone()
            return found is not None
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode != sqlite3.SQLITE_ERROR  # it has not even that table
    except sqlite3.DatabaseError:
        return True
