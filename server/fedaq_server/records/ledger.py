"""The ledger of a run: every committed round, on disk, so that a server can go on after it.

``ledger.sqlite`` in the run's folder holds the settings, the rounds, what each client was
sent and sent itself, and what the next round depends on; the model lies beside it as a
safetensors file. A round is committed by one transaction, after its model is on disk:
whenever the server is killed, the ledger names a round and a model that belong together.
"""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats, Spread
from fedaq.errors import SystemFaultError, UserError
from fedaq.files import flush_folder, replacing
from fedaq.settings import LimitsSettings, Settings
from fedaq_server.accounts import Accounts
from fedaq_server.conduct import Conduct
from fedaq_server.privacy.account import PrivacyAccount
from fedaq_server.records.database import locked, told
from fedaq_server.records.lost import LEDGER, from_last_model
from fedaq_server.records.migrations import migrate
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.rows import (
    RangesOf,
    Transfer,
    ranges_of,
    ranges_text,
    record_of,
    row_of,
)
from fedaq_server.records.scheme_state import restored, state_of
from fedaq_server.records.sent import Difference, Sent, Snapshot, needed
from fedaq_server.records.weights import (
    UNCHANGED,
    Names,
    file_digest,
    read_weights,
    refuse_if_damaged,
    refuse_if_not_finite,
    write_weights,
)

FILE, LOCK = LEDGER, f"{LEDGER}.lock"
# What lies beside it for a round: the model, and what the server's optimizer remembers.
MODEL, MOMENTS = "round", "moments"
# Where their digests are kept.
_DIGESTS = {MODEL: "model", MOMENTS: "moments"}

# Age and size of a write-ahead log that a commit brings into the ledger.
LOG_S, LOG_BYTES = 10.0, 2**20
# Rounds that are read at a time.
AT_A_TIME = 256

S = TypeVar("S")

_ROUND = tuple(field.name for field in fields(RoundRecord))


@dataclass(frozen=True)
class Committed:
    """A round to be committed, and what the next one depends on.

    Attributes
    ----------
    present : set of str
        The clients that are connected.
    ranges : mapping of str to tuple of Spread
        Of the updates of the round.
    sent : Sent, optional
        If clients are sent differences.
    """

    record: RoundRecord
    transfers: tuple[Transfer, ...]
    present: Set[str]
    ranges: RangesOf
    scheme: object
    sent: Sent | None
    conduct: Conduct
    accounts: Accounts = field(default_factory=Accounts)
    privacy: PrivacyAccount | None = None


class Ledger:
    """The ledger in a run's folder; one process at a time has it.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    rounds_done : int
        Number of the last committed round; 0 before the first.

    Raises
    ------
    UserError
        If another server has it, or it is not a ledger that this version can read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / FILE
        self._lock = locked(folder / LOCK)
        # No thread reads while another one commits: the log is not checkpointed beside a reader.
        self._turn = threading.Lock()
        # The round whose model was written last, and the digest of that file.
        self._written: dict[str, tuple[int, str]] = {}
        try:
            with told(self._file):
                self._database = sqlite3.connect(self._file, check_same_thread=False)
        except BaseException:
            self._lock.close()
            raise
        try:
            with told(self._file):
                self._prepare()
            self.rounds_done: int = self._read("SELECT MAX(round) FROM rounds")[0][0] or 0
            self._present: Set[str] = self.present()
            # Those of the last round alone: a run may see any number of clients.
            self._ranges: RangesOf = {}
            self._sent = self.sent()
            # The files that the ledger names, and those that it would name if its log were lost.
            self._named = self._checkpointed = self._names()
            self._checkpoint()
        except (sqlite3.DatabaseError, ValueError) as error:
            self.close()
            raise UserError(
                f"{self._file}: not the ledger of a run: {error}; {from_last_model(folder)}"
            ) from None
        except BaseException:  # a migration that was interrupted
            self.close()
            raise

    def _prepare(self) -> None:
        # Readers are not kept waiting, and a commit costs one flush to the disk.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        # `_checkpoint` has to know what the file names without the log.
        self._database.execute("PRAGMA wal_autocheckpoint = 0")
        self._database.execute("PRAGMA journal_size_limit = 0")
        self._database.execute("PRAGMA cache_size = -512")  # in KiB
        migrate(self._database, self._file)

    def begin(self, settings: Mapping[str, Any], run_id: str = "") -> None:
        """Keep the settings of the run, also if the log were lost; a relay gives its run's id."""
        with self._transaction():
            self._set("id", run_id or secrets.token_hex(8))
            self._set("settings", json.dumps(settings))
        self._checkpoint()
        flush_folder(self.folder)

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
    def is_over(self) -> bool:
        """Whether all rounds of the run are done."""
        return self._value("over") is not None

    @property
    def energy_j(self) -> float:
        """Joules of the committed rounds."""
        return float(self._read("SELECT TOTAL(energy_j) FROM rounds")[0][0])

    def records(self, after: int = 0) -> Iterator[RoundRecord]:
        """Yield the committed rounds after one, a few at a time from the disk."""
        query = f"SELECT {', '.join(_ROUND)} FROM rounds WHERE round > ? ORDER BY round LIMIT ?"
        while rows := self._read(query, (after, AT_A_TIME)):
            yield from map(record_of, rows)
            after = rows[-1][0]

    def present(self) -> set[str]:
        """Return the clients that were connected when the last round was committed."""
        return {name for (name,) in self._read("SELECT name FROM clients WHERE present")}

    def ranges(self, names: Iterable[str]) -> dict[str, tuple[Spread, ...]]:
        """Return the ranges of the last update of each of these clients that has sent one."""
        wanted = set(names)
        found = {name: self._ranges[name] for name in wanted & self._ranges.keys()}
        rows = self._read(
            "SELECT name, ranges FROM clients WHERE ranges IS NOT NULL"
            " AND name IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(wanted - found.keys())),),
        )
        return found | {name: ranges_of(text) for name, text in rows}

    def traffic(self) -> dict[tuple[str, str], int]:
        """Return the payload bytes of every client so far, by its name and the direction."""
        rows = self._read(
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

    def accounts(self, settings: Settings) -> Accounts:
        """Return what may be spent, and what was."""
        kept = json.loads(self._value("accounts") or "{}")
        return Accounts.restored(settings, kept, self.energy_j)

    def privacy(self) -> dict[str, Any]:
        """Return what is kept of the budget of epsilon; empty for none."""
        kept: dict[str, Any] = json.loads(self._value("privacy") or "{}")
        return kept

    def charge(self, account: PrivacyAccount) -> None:
        """Keep what a sum takes of the budget of epsilon, before it is released."""
        with self._transaction():
            self._set("privacy", json.dumps(account.state()))

    def sent(self) -> Sent:
        """Return what is kept of the differences that were sent."""
        differences = self._read(
            "SELECT number, base, payload_bytes, segment, start, lengths FROM differences"
            " ORDER BY number"
        )
        snapshots = self._read("SELECT number, digest FROM snapshots")
        # Ledgers of earlier versions do not say.
        digest = bytes.fromhex(self._value("held") or "")
        return Sent(
            tuple(
                Difference(number, base, payload_bytes, segment, start, tuple(json.loads(lengths)))
                for number, base, payload_bytes, segment, start, lengths in differences
            ),
            Snapshot(*snapshots[0]) if snapshots else None,
            digest,
        )

    def read_start(
        self, given: Path, spec: ModelSpec, out: Floats, renamed: Names, kept_out: Collection[str]
    ) -> None:
        """Read the model with which the run begins into `out`, and keep it in the folder.

        A run that goes on has it from there. `kept_out` names what never travels.

        Raises
        ------
        UserError
            If the file cannot be read, belongs to another task, or has NaN or infinity.
        """
        kept = self.start_path
        if kept.exists():
            refuse_if_damaged(kept, self._value("start"))
            read_weights(kept, spec, out, renamed)
        else:
            read_weights(given, spec, out, renamed, kept_out)
            refuse_if_not_finite(given, spec, out)
            with replacing(kept) as partial:
                write_weights(partial, spec, out)
                digest = file_digest(partial)
            with self._transaction():
                self._set("start", digest)

    def write_model(
        self, round_number: int, spec: ModelSpec, flat: Floats, kind: str = MODEL
    ) -> None:
        """Bring the model of a round that is about to be committed, or moments, to the disk."""
        with replacing(self._beside(kind, round_number)) as partial:
            write_weights(partial, spec, flat)
            self._written[kind] = round_number, file_digest(partial)

    def read_model(
        self,
        round_number: int,
        spec: ModelSpec,
        out: Floats,
        renamed: Mapping[str, str] = UNCHANGED,
        kind: str = MODEL,
    ) -> None:
        """Read the model of a committed round, or moments, into `out`; `renamed` is the task's.

        Raises
        ------
        UserError
            If it is not there, is damaged or belongs to another task.
        """
        path = self._beside(kind, round_number)
        number, _, digest = (self._value(_DIGESTS[kind]) or "").partition(" ")
        refuse_if_damaged(path, digest if number == str(round_number) else None)
        read_weights(path, spec, out, renamed)

    def commit(self, committed: Committed) -> None:
        """Commit a round whose model is on disk; only what it changed is written."""
        record = committed.record
        with self._transaction():
            self._insert("rounds", _ROUND, [row_of(record)])
            self._insert(
                "transfers",
                ("round", "client", "direction", "payload_bytes", "counted"),
                ((record.round, *astuple(transfer)) for transfer in committed.transfers),
            )
            self._commit_clients(committed.present, committed.ranges)
            if committed.sent is not None:
                self._commit_sent(committed.sent)
            self._set("scheme", json.dumps(state_of(committed.scheme)))
            self._set("conduct", json.dumps(committed.conduct.state()))
            self._set("accounts", json.dumps(committed.accounts.state()))
            if committed.privacy is not None:
                self._set("privacy", json.dumps(committed.privacy.state()))
            for kind, (number, digest) in self._written.items():
                if number == record.round:
                    self._set(_DIGESTS[kind], f"{number} {digest}")
        self._present, self._ranges = committed.present, committed.ranges
        self._sent = committed.sent or self._sent
        self.rounds_done = record.round
        self._named = self._names()
        log = self.folder / f"{FILE}-wal"
        if time.monotonic() > self._checkpointed_at + LOG_S or log.stat().st_size > LOG_BYTES:
            self._checkpoint()
        self._forget_all_but(self._named | self._checkpointed)

    def _names(self) -> frozenset[Path]:
        own = (self._beside(kind, self.rounds_done) for kind in (MODEL, MOMENTS))
        return frozenset({*own, *needed(self.folder, self._sent)})

    def _checkpoint(self) -> None:
        """Bring the write-ahead log into the file, unless somebody is reading what it replaces."""
        [(_, logged, done)] = self._read("PRAGMA wal_checkpoint(PASSIVE)")
        self._checkpointed_at = time.monotonic()
        if logged == done:
            self._checkpointed = self._named

    def _commit_clients(self, present: Set[str], ranges: RangesOf) -> None:
        gone = [(name,) for name in sorted(self._present - present)]
        self._database.executemany("UPDATE clients SET present = 0 WHERE name = ?", gone)
        come = [(name, True) for name in sorted(present - self._present - ranges.keys())]
        self._insert("clients", ("name", "present"), come, replacing="name")
        sent = [(name, name in present, ranges_text(each)) for name, each in ranges.items()]
        self._insert("clients", ("name", "present", "ranges"), sent, replacing="name")

    def _commit_sent(self, sent: Sent) -> None:
        self._insert(
            "differences",
            ("number", "base", "payload_bytes", "segment", "start", "lengths"),
            (
                (d.number, d.base, d.payload_bytes, d.segment, d.start, json.dumps(d.lengths))
                for d in sent.differences
                if d.number >= self._sent.count
            ),
        )
        self._set("held", sent.digest.hex())
        if sent.differences:
            first = sent.differences[0].number
            self._database.execute("DELETE FROM differences WHERE number < ?", (first,))
        if sent.snapshot is not None and sent.snapshot != self._sent.snapshot:
            self._database.execute("DELETE FROM snapshots")
            self._insert("snapshots", ("number", "digest"), [astuple(sent.snapshot)])

    def finish(self) -> None:
        """Note that all rounds are done; what only further rounds would need is removed."""
        with self._transaction():
            self._set("over", "all rounds are done")
            self._database.execute("DELETE FROM differences")
            self._database.execute("DELETE FROM snapshots")
        # The run is over, whatever becomes of what is superfluous now.
        with suppress(SystemFaultError, OSError):
            self._checkpoint()
            self._forget_all_but(())
            self.start_path.unlink(missing_ok=True)
        # Nobody goes on with it any more.
        self._lock.close()
        with suppress(OSError):
            (self.folder / LOCK).unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have the ledger."""
        with self._turn:
            self._database.close()
        self._lock.close()

    def discard(self) -> None:
        """Remove the ledger of a run that came to nothing."""
        self.close()
        self._forget_all_but(())
        for path in (*self.folder.glob(f"{FILE}*"), self.start_path):
            path.unlink(missing_ok=True)

    @property
    def start_path(self) -> Path:
        """Return the file that keeps what the run began with, if it was given."""
        return self.folder / "start.safetensors"

    def _beside(self, kind: str, round_number: int) -> Path:
        return self.folder / f"{kind}-{round_number:06}.safetensors"

    def _forget_all_but(self, needed: Collection[Path]) -> None:
        models = (f"{kind}-*.safetensors*" for kind in (MODEL, MOMENTS))
        for kind in (*models, "held-*.bin*", "differences-*.bin"):
            for path in self.folder.glob(kind):
                if path not in needed:
                    path.unlink()

    def _value(self, name: str) -> str | None:
        rows = self._read("SELECT value FROM run WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._turn, told(self._file), self._database:
            yield

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._turn, told(self._file):
            return self._database.execute(query, values).fetchall()

    def _set(self, name: str, value: str) -> None:
        self._insert("run", ("name", "value"), [(name, value)], replacing="name")

    def _insert(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        replacing: str | None = None,
    ) -> None:
        """Insert rows; with `replacing`, in place of those that are equal in that column."""
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        if replacing is not None:
            changes = (f"{name} = excluded.{name}" for name in columns if name != replacing)
            statement += f" ON CONFLICT ({replacing}) DO UPDATE SET {', '.join(changes)}"
        self._database.executemany(statement, rows)
