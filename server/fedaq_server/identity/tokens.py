"""Tokens: what a client shows where certificates for clients are too much."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from fedaq.errors import UserError, refused
from fedaq.files import make_folder, write
from fedaq.net.client_names import checked_name
from fedaq_server.identity.line_files import is_digest, read_lines

_TOKEN_BYTES = 32
SCHEME = "Bearer "


@dataclass(frozen=True)
class Tokens:
    """Whose tokens a server takes.

    Attributes
    ----------
    digests : dict of str to str
        SHA-256 of each client's secret, hexadecimal. A secret is 256 random bits, which
        nobody finds by trying, so a slow hash would protect nothing more.
    """

    digests: Mapping[str, str]

    def name_of(self, authorization: str) -> str | None:
        """Return whose token a call's ``authorization`` is; None if it is nobody's."""
        if not authorization.startswith(SCHEME):
            return None
        quoted, _, secret = authorization.removeprefix(SCHEME).rpartition(":")
        name = unquote(quoted)
        expected = self.digests.get(name, "")
        return name if hmac.compare_digest(_digest(secret), expected) else None


def make_tokens(file: Path, names: Sequence[str]) -> list[Path]:
    """Make a token for each client; another one if it has one already.

    Parameters
    ----------
    file : Path
        The server's: one line per client, its name and the SHA-256 of its secret. The tokens
        themselves go to ``NAME.token`` beside it.
    names : sequence of str

    Returns
    -------
    list of Path
        The files for the clients.

    Raises
    ------
    UserError
        If a name or the file cannot be used.
    """
    digests = dict(read_tokens(file).digests) if file.exists() else {}
    made = []
    try:
        make_folder(file.parent)
        for name in map(checked_name, names):
            secret = secrets.token_urlsafe(_TOKEN_BYTES)
            path = file.with_name(f"{name}.token")
            if path == file:
                raise UserError(f"{file}: the token of {name} would take its place")
            write(path, f"{quote(name, safe='')}:{secret}\n".encode(), private=True)
            digests[name] = _digest(secret)
            made.append(path)
        lines = "".join(f"{name} {digest}\n" for name, digest in digests.items())
        write(file, lines.encode(), private=True)
    except OSError as error:
        raise UserError(refused(error) or str(error)) from None
    return made


def read_tokens(file: Path) -> Tokens:
    """Read the server's file.

    Raises
    ------
    UserError
        If it cannot be read or is no such file.
    """
    digests: dict[str, str] = {}
    lines = read_lines(file, "not a file of tokens; fedaq tokens makes one")
    if not lines:
        raise UserError(
            f"{file}: is empty; put back a copy of it, or remove it and make the tokens anew: "
            "fedaq tokens"
        )
    for number, line in enumerate(lines, 1):
        name, _, digest = line.partition(" ")
        # The line itself may hold a secret that somebody put in the wrong file.
        if not is_digest(digest):
            raise UserError(f"{file}, line {number}: it should be a client's name and a SHA-256")
        if name in digests:
            raise UserError(f"{file}, line {number}: {name} has a line already")
        digests[name] = digest
    return Tokens(digests)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
