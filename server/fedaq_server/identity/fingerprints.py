"""Certificates by their fingerprints: which were issued to whom, and which are revoked.

A file has one line per certificate: its SHA-256, hexadecimal, and the client's name.
"""

import hashlib
from pathlib import Path

from fedaq.errors import UserError
from fedaq_server.identity.line_files import is_digest, read_lines


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
    entries: dict[str, str] = {}
    lines = read_lines(path, "not a file of fingerprints", may_lack=True)
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition(" ")
        if not name or not is_digest(digest):
            raise UserError(f"{path}, line {number}: it should be a SHA-256 and a client's name")
        entries[digest] = name
    return entries
