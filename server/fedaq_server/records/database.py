"""What SQLite says when it fails, and the lock that one process at a time has."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedaq.errors import SystemFaultError, UserError, refused

# The last eight bits of an error's code are its kind.
_KIND = 0xFF
_OF_THE_SYSTEM = {
    sqlite3.SQLITE_FULL: "make room on that disk",
    sqlite3.SQLITE_IOERR: "the disk fails or a quota is used up: see dmesg",
    sqlite3.SQLITE_CANTOPEN: "is its folder writable, and are there not too many open files?",
    sqlite3.SQLITE_READONLY: "is it another user's, or its disk read-only?",
    sqlite3.SQLITE_PERM: "is it another user's?",
    sqlite3.SQLITE_NOMEM: "the machine has no memory left",
}


@contextmanager
def told(file: Path) -> Iterator[None]:
    """Turn what the system refuses SQLite into a sentence: of which file, and what helps.

    Raises
    ------
    SystemFaultError
    sqlite3.Error
        If it is no fault of the system's.
    """
    try:
        yield
    except sqlite3.Error as error:
        kind = getattr(error, "sqlite_errorcode", 0) & _KIND
        if kind not in _OF_THE_SYSTEM:
            raise
        said = _refused_now(file)
        if said is None:
            name = getattr(error, "sqlite_errorname", "")
            said = f"{file}: {error} ({name}); {_OF_THE_SYSTEM[kind]}"
        raise SystemFaultError(said) from error


def _refused_now(file: Path) -> str | None:
    """Do what SQLite did beside the file, for the reason that it does not tell."""
    try:
        if file.exists():
            os.close(os.open(file, os.O_RDWR))
        with tempfile.TemporaryFile(dir=file.parent) as beside:
            beside.write(bytes(4096))
            beside.flush()
            os.fsync(beside.fileno())
    except OSError as error:
        error.filename = str(file)
        return refused(error)
    return None


def locked(file: Path) -> sqlite3.Connection:
    """Return a transaction on a file that no other process can begin before this one's end.

    SQLite locks files on every system. That of the ledger itself must stay open to readers.

    Raises
    ------
    UserError
        If another process has it.
    SystemFaultError
        If the system refuses it.
    """
    try:
        with told(file):
            lock = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error:
                lock.close()
                raise
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise UserError(f"{file.parent}: another server is at work on this run") from None
        raise UserError(
            f"{file}: cannot be used: {error}; it is empty, and may be removed"
        ) from None
    return lock
