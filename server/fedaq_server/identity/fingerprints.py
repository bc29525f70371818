"""Certificates by their fingerprints: which were issued to whom, and which are revoked.

A file has one line per certificate: its SHA-256, hexadecimal, and the client's name.
"""

import hashlib
from pathlib import Path

from fedaq.errors import UserError

_DIGITS = 64


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate in DER, hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def read_fingerprints(path: Path) -> dict[str, str]:
    """Return the fingerprints in a file and whose they are; without the file there are none.

    Raises
    ------
    UserError
        If it cannot be read or is no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a file of fingerprints") from None
    entries: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition(" ")
        if not name or len(digest) != _DIGITS or set(digest) - set("0123456789abcdef"):
            raise UserError(f"{path}, line {number}: it should be a SHA-256 and a client's name")
        entries[digest] = name
    return entries
