"""Folders of certificates, as ``fedaq certs`` makes them, checked before anybody uses them."""

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

from fedaq.errors import UserError

# X509_V_ERR_...
NOT_YET_VALID, EXPIRED = 9, 10
_WRONG_PURPOSE = 26
# A handshake in memory takes three flights; more turns would find nothing new.
_TURNS = 8


@dataclass(frozen=True)
class Certificates:
    """What one host has of a federation's certificates, all PEM.

    Attributes
    ----------
    folder : Path
        Where they were read.
    ca : bytes
        The authority that signed the other side's certificate.
    certificate, key : bytes
        This host's own; empty for a client that has none.
    name : str
        Whom the certificate is for; empty without one.
    expires_s : float
        When its validity ends, in seconds since 1970.
    """

    folder: Path
    ca: bytes
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    name: str = ""
    expires_s: float = inf


def server_certificates(folder: Path) -> Certificates:
    """Read ``server.crt``, ``server.key`` and ``ca.crt``.

    Raises
    ------
    UserError
        If a file cannot be read, the key is another certificate's, or the certificate
        has expired or is not a server's.
    """
    return _read(folder, "server")


def client_certificates(folder: Path) -> Certificates:
    """Read ``ca.crt`` and, if they are there, ``client.crt`` and ``client.key``.

    Raises
    ------
    UserError
        If a file cannot be read, the key is another certificate's, or the certificate
        has expired or is not a client's.
    """
    if not any((folder / f"client.{end}").exists() for end in ("crt", "key")):
        ca = _bytes_of(folder / "ca.crt")
        client_context(folder, with_certificate=False)
        return Certificates(folder, ca)
    return _read(folder, "client")


def client_context(folder: Path, *, with_certificate: bool) -> ssl.SSLContext:
    """Return the same credentials for a connection of Python's own.

    Raises
    ------
    UserError
        If a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _trust(context, folder)
    if with_certificate:
        _present(context, folder, "client")
    return context


def _read(folder: Path, role: str) -> Certificates:
    ca, certificate, key = (
        _bytes_of(folder / name) for name in ("ca.crt", f"{role}.crt", f"{role}.key")
    )
    client_context(folder, with_certificate=False)
    return Certificates(folder, ca, certificate, key, *_name_and_end(folder, role))


def _name_and_end(folder: Path, role: str) -> tuple[str, float]:
    """Return the name in a certificate, and its last second, if its dates and purpose are right.

    A client and a server meet in memory, so that the library that judges certificates on the
    wire judges this one. Who signed it is for the other side to judge.
    """
    path = folder / f"{role}.crt"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_REQUIRED if role == "server" else ssl.CERT_NONE
    server.verify_mode = ssl.CERT_REQUIRED if role == "client" else ssl.CERT_NONE
    for context in (server, client):
        _present(context, folder, role)
        context.load_verify_locations(path)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True))
    try:
        _shake_hands(*ends)
    except ssl.SSLCertVerificationError as error:
        raise UserError(f"{path}: {_unfit(error, role)}") from None
    except ssl.SSLError as error:
        raise UserError(f"{path}: TLS cannot use it: {error.reason}") from None
    judge = ends[0] if role == "server" else ends[1]
    seen: Any = judge.getpeercert() or {}
    subject = seen.get("subject", ())
    names = [value for part in subject for kind, value in part if kind == "commonName"]
    if len(names) != 1:
        raise UserError(f"{path}: its subject has {len(names)} common names; it needs one")
    return str(names[0]), float(ssl.cert_time_to_seconds(seen["notAfter"]))


def _shake_hands(*ends: ssl.SSLObject) -> None:
    waiting = list(ends)
    for _ in range(_TURNS):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)


def _unfit(error: ssl.SSLCertVerificationError, role: str) -> str:
    if error.verify_code == EXPIRED:
        return "the certificate has expired; make a new one with fedaq certs"
    if error.verify_code == NOT_YET_VALID:
        return f"the certificate is not valid yet; {doubted_clock()}"
    if error.verify_code == _WRONG_PURPOSE:
        return f"the certificate is not a {role}'s"
    return error.verify_message


def doubted_clock() -> str:
    """Return the words for whoever meets a certificate from the future."""
    now = datetime.now(UTC)
    return f"is this machine's clock right? It says {now:%Y-%m-%d %H:%M} UTC"


def _trust(context: ssl.SSLContext, folder: Path) -> None:
    path = folder / "ca.crt"
    _bytes_of(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise UserError(f"{path}: not a certificate in PEM") from None


def _present(context: ssl.SSLContext, folder: Path, role: str) -> None:
    certificate, key = folder / f"{role}.crt", folder / f"{role}.key"
    for path in (certificate, key):
        _bytes_of(path)
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UserError(f"{key}: not the key of {certificate.name} beside it") from None
        raise UserError(
            f"{certificate}, {key.name}: not a certificate and its key in PEM, without a password"
        ) from None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
