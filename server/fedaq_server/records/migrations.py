"""The versions of a ledger's tables, and how a ledger of an older one is brought to the newest.

Nothing here follows the code around it: what a version was stays as it was. A new version is one
more function at the end of `_STEPS`.
"""

import sqlite3
from pathlib import Path

from fedaq.errors import UserError


def _first_tables(database: sqlite3.Connection, folder: Path) -> None:
    # A ledger that was opened and never begun has these tables, and no version yet.
    for table in (
        "run (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """rounds (
            round INTEGER, test_accuracy REAL, test_loss REAL, train_loss REAL, uplink_bits REAL,
            downlink_bits REAL, uplink_payload_bytes INTEGER, downlink_payload_bytes INTEGER,
            catch_up_payload_bytes INTEGER, uplink_wire_bytes INTEGER, downlink_wire_bytes INTEGER,
            energy_j REAL, price REAL, clients INTEGER, left_out INTEGER, seconds REAL,
            PRIMARY KEY (round)
        )""",
        """transfers (
            round INTEGER, client TEXT, direction TEXT, payload_bytes INTEGER, counted INTEGER,
            PRIMARY KEY (round, client, direction)
        )""",
        "clients (name TEXT PRIMARY KEY, present INTEGER NOT NULL, ranges TEXT)",
        """differences (
            number INTEGER PRIMARY KEY, base BLOB, payload_bytes INTEGER, start INTEGER,
            lengths TEXT
        )""",
    ):
        database.execute(f"CREATE TABLE IF NOT EXISTS {table}")


def _snapshots(database: sqlite3.Connection, folder: Path) -> None:
    """Differences lie in a file for each snapshot, no longer in one for the whole run."""
    database.execute("ALTER TABLE differences ADD COLUMN segment INTEGER NOT NULL DEFAULT 0")
    database.execute("CREATE TABLE snapshots (number INTEGER PRIMARY KEY, digest BLOB NOT NULL)")
    alone = folder / "differences.bin"
    if alone.exists():
        alone.rename(folder / "differences-000000.bin")


def _metrics(database: sqlite3.Connection, folder: Path) -> None:
    """A round has numbers of any name, and the names of tensors that are not finite."""
    database.execute("ALTER TABLE rounds ADD COLUMN test_metrics TEXT")
    database.execute("ALTER TABLE rounds ADD COLUMN not_finite TEXT")


def _validations(database: sqlite3.Connection, folder: Path) -> None:
    """A round has what clients' own tests gave: the means, and each."""
    database.execute("ALTER TABLE rounds ADD COLUMN client_metrics TEXT")
    database.execute("ALTER TABLE rounds ADD COLUMN validations TEXT")


def _declined(database: sqlite3.Connection, folder: Path) -> None:
    """A round has how many clients declined it, and why."""
    database.execute("ALTER TABLE rounds ADD COLUMN declined TEXT")


def _training(database: sqlite3.Connection, folder: Path) -> None:
    """A round has the joules that devices spent on training."""
    database.execute("ALTER TABLE rounds ADD COLUMN training_j REAL DEFAULT 0")


def _relays(database: sqlite3.Connection, folder: Path) -> None:
    """A round has what relays reported of their clients and of their hops."""
    database.execute("ALTER TABLE rounds ADD COLUMN relays TEXT")


def _epsilon(database: sqlite3.Connection, folder: Path) -> None:
    """A round has the epsilon that the run has spent by its end."""
    database.execute("ALTER TABLE rounds ADD COLUMN epsilon REAL DEFAULT 0")


# The first makes version 1 of nothing.
_STEPS = (
    _first_tables, _snapshots, _metrics, _validations, _declined, _training, _relays, _epsilon,
)  # fmt: skip
VERSION = len(_STEPS)


def migrate(database: sqlite3.Connection, path: Path) -> None:
    """Bring the tables of a ledger to `VERSION`, or leave them as they are.

    Parameters
    ----------
    database : sqlite3.Connection
    path : Path
        Its file.

    Raises
    ------
    UserError
        If it is of a later version.
    sqlite3.DatabaseError
        If it is no ledger.
    """
    known = _version(database)
    if known > VERSION:
        raise UserError(f"{path}: has version {known}; this fedaq reads {VERSION}")
    for number, step in enumerate(_STEPS[known:], known + 1):
        with database:
            database.execute("BEGIN IMMEDIATE")
            step(database, path.parent)
            database.execute(
                "INSERT INTO run (name, value) VALUES ('version', ?)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (str(number),),
            )


def _version(database: sqlite3.Connection) -> int:
    """Return the version of a ledger, 0 for one that is empty.

    It lies where version 1 has it, and not in ``user_version``: so a fedaq that knows only
    version 1 refuses a later ledger, too.
    """
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'run'").fetchone():
        return 0
    row = database.execute("SELECT value FROM run WHERE name = 'version'").fetchone()
    return 0 if row is None else int(row[0])
