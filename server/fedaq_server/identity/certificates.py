"""A private certificate authority, and the certificates of a federation's hosts."""

import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedaq.errors import UserError, refused
from fedaq.files import make_folder, write
from fedaq.net.client_names import checked_name
from fedaq_server.identity.fingerprints import fingerprint, read_fingerprints

ALWAYS = ("localhost", "127.0.0.1", "::1")
CA_DAYS = 3650
# The clocks of small boards are late.
_SKEW = timedelta(days=1)
_NO_USAGE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


@dataclass(frozen=True)
class Issued:
    """One folder of certificates.

    Attributes
    ----------
    folder : Path
    host : str
        Who gets it.
    until : datetime
        End of the certificate's validity, UTC.
    """

    folder: Path
    host: str
    until: datetime


@dataclass(frozen=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def issue(
    folder: Path,
    *,
    hosts: Sequence[str] = (),
    clients: Sequence[str] = (),
    revoked: Sequence[str] = (),
    days: int = 365,
) -> list[Issued]:
    """Make certificates for a server and for clients; the authority is made once and kept.

    The server's certificate is made at the first call and whenever hosts are named; it keeps
    the hosts that it had. A client that is named again gets a new key and certificate.

    Parameters
    ----------
    folder : Path
    hosts : sequence of str
        Names and IP addresses under which clients reach the server.
    clients : sequence of str
    revoked : sequence of str
        Clients whose certificates so far the server shall refuse.
    days : int
        Validity of the new certificates; it never exceeds the authority's.

    Returns
    -------
    list of Issued
        What was made.

    Raises
    ------
    UserError
        If a name or the folder cannot be used.
    """
    for name in clients:
        checked_name(name)
    alternatives = [_alternative(host) for host in hosts]
    try:
        authority = _authority(folder)
        for name in revoked:
            _revoke(folder, name)
        made = []
        server = folder / "server"
        if hosts or not (server / "server.crt").exists():
            made.append(_issue_server(server, authority, alternatives, days))
        made += [_issue_client(folder, authority, name, days) for name in clients]
    except OSError as error:
        raise UserError(refused(error) or str(error)) from None
    return made


def _revoke(folder: Path, name: str) -> None:
    known = [
        digest for digest, owner in read_fingerprints(folder / "issued").items() if owner == name
    ]  # fmt: skip
    if not known:
        raise UserError(f"--revoke {name}: {folder} has made no certificate for this client")
    for digest in known:
        _append(folder / "server" / "revoked", f"{digest} {name}\n")


def _authority(folder: Path) -> _Authority:
    certificate_path, key_path = folder / "ca.crt", folder / "ca.key"
    # A first call that was interrupted may have left the key: it has signed nothing.
    if not certificate_path.exists() and not (folder / "server").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        # Two authorities of one name could not be told apart by what verification says.
        subject = _subject(f"FedAQ private CA {secrets.token_hex(4)}")
        certificate = (
            _builder(subject, subject, key, datetime.now(UTC) + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(**{**_NO_USAGE, "key_cert_sign": True, "crl_sign": True}),
                critical=True,
            )
            .sign(key, hashes.SHA256())
        )
        make_folder(folder)
        _write_key(key_path, key)
        write(certificate_path, _pem(certificate))
        return _Authority(certificate, key)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        loaded = serialization.load_pem_private_key(key_path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: ca.crt and ca.key cannot be read: {error}; put back a copy of them, or "
            "begin anew in another folder"
        ) from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or (
        loaded.public_key() != certificate.public_key()
    ):
        raise UserError(f"{key_path}: not the key of ca.crt beside it")
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise UserError(f"{certificate_path}: it has expired; begin anew in another folder")
    return _Authority(certificate, loaded)


def _issue_server(
    folder: Path, authority: _Authority, hosts: Iterable[x509.GeneralName], days: int
) -> Issued:
    kept = _hosts_of(folder / "server.crt")
    always = [_alternative(host) for host in ALWAYS]
    alternatives = x509.SubjectAlternativeName(dict.fromkeys([*always, *kept, *hosts]))
    certificate, key = _certificate(
        authority, "FedAQ server", alternatives, ExtendedKeyUsageOID.SERVER_AUTH, days
    )
    _write_folder(folder, "server", authority, certificate, key)
    return Issued(folder, "the server", certificate.not_valid_after_utc)


def _issue_client(folder: Path, authority: _Authority, name: str, days: int) -> Issued:
    alternatives = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(f"urn:fedaq:client:{quote(name, safe='')}")]
    )
    certificate, key = _certificate(
        authority, name, alternatives, ExtendedKeyUsageOID.CLIENT_AUTH, days
    )
    home = folder / "clients" / name
    _append(folder / "issued", f"{fingerprint(_der(certificate))} {name}\n")
    _write_folder(home, "client", authority, certificate, key)
    return Issued(home, f"client {name}", certificate.not_valid_after_utc)


def _certificate(
    authority: _Authority,
    name: str,
    alternatives: x509.SubjectAlternativeName,
    purpose: x509.ObjectIdentifier,
    days: int,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(datetime.now(UTC) + timedelta(days=days), authority.certificate.not_valid_after_utc)
    issuer = authority.certificate
    certificate = (
        _builder(_subject(name), issuer.subject, key, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USAGE, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(alternatives, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    labels = host.split(".")
    if not all(label and label.replace("-", "").isalnum() for label in labels) or (
        not host.isascii() or len(host) > 253
    ):
        raise UserError(f"--host {host}: it should be a host name or an IP address, without a port")
    return x509.DNSName(host.lower())


def _hosts_of(path: Path) -> list[x509.GeneralName]:
    if not path.exists():
        return []
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UserError(
            f"{path}: cannot be read: {error}; remove it, and name its hosts again with --host"
        ) from None
    return list(extension.value)


def _write_folder(
    folder: Path,
    role: str,
    authority: _Authority,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> None:
    make_folder(folder)
    _write_key(folder / f"{role}.key", key)
    write(folder / f"{role}.crt", _pem(certificate))
    write(folder / "ca.crt", _pem(authority.certificate))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        private=True,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _append(path: Path, line: str) -> None:
    before = path.read_bytes() if path.exists() else b""
    write(path, before + line.encode())
