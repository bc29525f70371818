"""The ledger of a run: every committed round, on disk, so that a server can go on after it.

``ledger.sqlite`` in the run's folder holds the settings, the rounds, what each client was
sent and sent itself, and what the next round depends on; the model lies beside it as a
safetensors file. A round is committed by one transaction, after its model is on disk:
whenever the server is killed, the ledger names a round and a model that belong together.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from math import nan
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats, Spread
from fedaq.errors import UserError
from fedaq.settings import LimitsSettings
from fedaq_server.conduct import Conduct
from fedaq_server.records.files import replacing
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.scheme_state import restored, state_of
from fedaq_server.records.weights import UNCHANGED, read_weights, write_weights

FILE = "ledger.sqlite"
VERSION = 1

S = TypeVar("S")

_TYPES: dict[Any, str] = {int: "INTEGER", float: "REAL", int | None: "INTEGER"}
_TABLES = f"""
CREATE TABLE IF NOT EXISTS run (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (
    {", ".join(f"{field.name} {_TYPES[field.type]}" for field in fields(RoundRecord))},
    PRIMARY KEY (round)
);
CREATE TABLE IF NOT EXISTS transfers (
    round INTEGER, client TEXT, direction TEXT, payload_bytes INTEGER, counted INTEGER,
    PRIMARY KEY (round, client, direction)
);
CREATE TABLE IF NOT EXISTS clients (
    name TEXT PRIMARY KEY, present INTEGER NOT NULL, ranges TEXT
);
CREATE TABLE IF NOT EXISTS differences (
    number INTEGER PRIMARY KEY, base BLOB, payload_bytes INTEGER, start INTEGER, lengths TEXT
);
"""


@dataclass(frozen=True)
class Transfer:
    """What one client was sent in a round, or sent.

    Attributes
    ----------
    client : str
    direction : str
        ``uplink`` or ``downlink``.
    payload_bytes : int
        Of an update that is not counted: what was granted, for it may have cost energy.
    counted : bool
        Whether the update was whole in time; always of the downlink.
    """

    client: str
    direction: str
    payload_bytes: int
    counted: bool


@dataclass(frozen=True)
class ClientMemory:
    """What a run knows of a client from earlier rounds.

    Attributes
    ----------
    present : bool
        Whether it was connected when the round was committed.
    ranges : tuple of Spread, optional
        Of its last update.
    """

    present: bool
    ranges: tuple[Spread, ...] | None


@dataclass(frozen=True)
class Difference:
    """One difference that was sent: where its messages lie, and where it leads from.

    Attributes
    ----------
    base : bytes
        Digest of the model before it.
    payload_bytes : int
        What it costs to send.
    start : int
        Offset of its messages in the file.
    lengths : tuple of int
        Bytes of each message: a header, then chunks.
    """

    base: bytes
    payload_bytes: int
    start: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Committed:
    """A round to be committed, and what the next one depends on."""

    record: RoundRecord
    transfers: tuple[Transfer, ...]
    clients: Mapping[str, ClientMemory]
    scheme: object
    differences: tuple[Difference, ...]
    conduct: Conduct


class Ledger:
    """The ledger in a run's folder; one process at a time has it.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    UserError
        If another server has it, or it is not a ledger that this version can read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = _locked(folder)
        self._database = sqlite3.connect(folder / FILE, check_same_thread=False)
        try:
            # Readers are not kept waiting, and a commit costs one flush to the disk.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_TABLES)
            known = self._value("version")
        except sqlite3.DatabaseError as error:
            self.close()
            raise UserError(f"{folder / FILE}: not the ledger of a run: {error}") from None
        if known not in (None, str(VERSION)):
            self.close()
            raise UserError(f"{folder / FILE}: has version {known}; this fedaq reads {VERSION}")

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Keep the settings of the run."""
        with self._database:
            self._set("version", str(VERSION))
            self._set("id", secrets.token_hex(8))
            self._set("settings", json.dumps(settings))

    def settings(self) -> dict[str, Any] | None:
        """Return the settings of the run, None if it has not begun."""
        text = self._value("settings")
        settings: dict[str, Any] | None = None if text is None else json.loads(text)
        return settings

    @property
    def run_id(self) -> str:
        """What tells this run from all others."""
        return self._value("id") or ""

    @property
    def differences_path(self) -> Path:
        """Where the messages of all differences lie."""
        return self.folder / "differences.bin"

    @property
    def is_over(self) -> bool:
        """Whether all rounds of the run are done."""
        return self._value("over") is not None

    def records(self) -> list[RoundRecord]:
        """Return the committed rounds."""
        names = ", ".join(field.name for field in fields(RoundRecord))
        rows = self._database.execute(f"SELECT {names} FROM rounds ORDER BY round")
        return [_record(row) for row in rows]

    def clients(self) -> dict[str, ClientMemory]:
        """Return what is known of the clients, by name."""
        rows = self._database.execute("SELECT name, present, ranges FROM clients ORDER BY name")
        return {name: ClientMemory(bool(present), _ranges(text)) for name, present, text in rows}

    def traffic(self) -> dict[tuple[str, str], int]:
        """Return the payload bytes of every client so far, by its name and the direction."""
        rows = self._database.execute(
            "SELECT client, direction, SUM(payload_bytes) FROM transfers GROUP BY client, direction"
        )
        return {(client, direction): total for client, direction, total in rows}

    def scheme(self, fresh: S) -> S:
        """Return a scheme in the state of the last committed round."""
        text = self._value("scheme")
        return fresh if text is None else restored(fresh, json.loads(text))

    def conduct(self, limits: LimitsSettings) -> Conduct:
        """Return what is known of the clients' conduct."""
        text = self._value("conduct")
        return Conduct(limits) if text is None else Conduct.restored(limits, json.loads(text))

    def differences(self) -> list[Difference]:
        """Return the differences that were sent, in their order."""
        rows = self._database.execute(
            "SELECT base, payload_bytes, start, lengths FROM differences ORDER BY number"
        )
        return [
            Difference(base, payload_bytes, start, tuple(json.loads(lengths)))
            for base, payload_bytes, start, lengths in rows
        ]

    def read_start(
        self, given: Path, spec: ModelSpec, out: Floats, renamed: Mapping[str, str] = UNCHANGED
    ) -> None:
        """Read the model with which the run begins into `out`, and keep it in the folder.

        A run that goes on has it from there, wherever the file has gone. `renamed` is the task's.

        Raises
        ------
        UserError
            If the file cannot be read, belongs to another task, or has NaN or infinity.
        """
        kept = self._start_path
        read_weights(kept if kept.exists() else given, spec, out, renamed)
        if not kept.exists():
            for tensor, values in zip(spec.tensors, spec.split(out), strict=True):
                if not np.isfinite(values).all():
                    raise UserError(f"--from {given}: {tensor.name} has NaN or infinity")
            with replacing(kept, flush=True) as partial:
                write_weights(partial, spec, out)

    def write_model(self, round_number: int, spec: ModelSpec, flat: Floats) -> None:
        """Bring the model of a round that is about to be committed to the disk."""
        with replacing(self._model(round_number), flush=True) as partial:
            write_weights(partial, spec, flat)

    def read_model(
        self,
        round_number: int,
        spec: ModelSpec,
        out: Floats,
        renamed: Mapping[str, str] = UNCHANGED,
    ) -> None:
        """Read the model of a committed round into `out`; `renamed` is the task's.

        Raises
        ------
        UserError
            If it is not there or belongs to another task.
        """
        read_weights(self._model(round_number), spec, out, renamed)

    def commit(self, committed: Committed) -> None:
        """Commit a round whose model is on disk."""
        record = committed.record
        with self._database:
            values = astuple(record)
            marks = ", ".join("?" * len(values))
            self._database.execute(f"INSERT INTO rounds VALUES ({marks})", values)
            self._database.executemany(
                "INSERT INTO transfers VALUES (?, ?, ?, ?, ?)",
                ((record.round, *astuple(transfer)) for transfer in committed.transfers),
            )
            self._database.execute("UPDATE clients SET present = 0")
            self._database.executemany(
                "INSERT OR REPLACE INTO clients VALUES (?, ?, ?)",
                (
                    (name, memory.present, _ranges_text(memory.ranges))
                    for name, memory in committed.clients.items()
                ),
            )
            (before,) = self._database.execute("SELECT COUNT(*) FROM differences").fetchone()
            self._database.executemany(
                "INSERT INTO differences VALUES (?, ?, ?, ?, ?)",
                _difference_rows(committed.differences[before:], before),
            )
            self._set("scheme", json.dumps(state_of(committed.scheme)))
            self._set("conduct", json.dumps(committed.conduct.state()))
        self._forget_models_but(self._model(record.round))

    def finish(self) -> None:
        """Note that all rounds are done; what only further rounds would need is removed."""
        with self._database:
            self._set("over", "all rounds are done")
            self._database.execute("DELETE FROM differences")
        self._forget_models_but(None)
        self.differences_path.unlink(missing_ok=True)
        self._start_path.unlink(missing_ok=True)
        # Nobody goes on with it any more.
        self._lock.close()
        _lock_path(self.folder).unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have the ledger."""
        self._database.close()
        self._lock.close()

    def discard(self) -> None:
        """Remove the ledger of a run that came to nothing."""
        self.close()
        for path in (*self.folder.glob(f"{FILE}*"), self.differences_path, self._start_path):
            path.unlink(missing_ok=True)

    @property
    def _start_path(self) -> Path:
        return self.folder / "start.safetensors"

    def _model(self, round_number: int) -> Path:
        return self.folder / f"round-{round_number:06}.safetensors"

    def _forget_models_but(self, kept: Path | None) -> None:
        for path in self.folder.glob("round-*.safetensors*"):
            if path != kept:
                path.unlink()

    def _value(self, name: str) -> str | None:
        row = self._database.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set(self, name: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, value))


def _locked(folder: Path) -> sqlite3.Connection:
    """Return a transaction that no other process can begin before this one's end.

    SQLite locks files on every system. That of the ledger itself must stay open to readers.
    """
    file = _lock_path(folder)
    try:
        lock = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            lock.close()
            raise
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise UserError(f"{folder}: another server is at work on this run") from None
        raise UserError(f"{file}: cannot be used: {error}") from None
    return lock


def _lock_path(folder: Path) -> Path:
    return folder / f"{FILE}.lock"


def _difference_rows(
    differences: Sequence[Difference], first: int
) -> Iterator[tuple[int, bytes, int, int, str]]:
    for number, d in enumerate(differences, first):
        yield number, d.base, d.payload_bytes, d.start, json.dumps(d.lengths)


def _ranges_text(ranges: tuple[Spread, ...] | None) -> str | None:
    return None if ranges is None else json.dumps([astuple(spread) for spread in ranges])


def _ranges(text: str | None) -> tuple[Spread, ...] | None:
    return None if text is None else tuple(Spread(*values) for values in json.loads(text))


def _record(row: tuple[Any, ...]) -> RoundRecord:
    """Return a row as a record; SQLite has no NaN, it keeps NULL in its place."""
    pairs = zip(fields(RoundRecord), row, strict=True)
    values: dict[str, Any] = {
        field.name: nan if value is None and field.type is float else value
        for field, value in pairs
    }
    return RoundRecord(**values)
