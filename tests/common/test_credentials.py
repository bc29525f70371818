"""Folders of certificates: what is wrong with one is said before anybody uses it."""

import shutil
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedaq.errors import UserError
from fedaq.net.addresses import is_loopback
from fedaq.net.credentials import client_certificates, server_certificates
from fedaq_server.identity.certificates import issue


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def common_name(certificate: x509.Certificate) -> object:
    return certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    issue(folder, hosts=["fl.example.org", "10.1.2.3"], clients=["kitchen", "Küche"])
    return folder


def test_certificates_say_who_they_are_for_and_what_they_may_do(certs: Path) -> None:
    ca, server, client = (
        load(certs / name) for name in ("ca.crt", "server/server.crt", "clients/kitchen/client.crt")
    )
    for certificate, is_ca in ((ca, True), (server, False), (client, False)):
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert basic.critical
        assert basic.value.ca is is_ca
        assert usage.critical
        assert usage.value.key_cert_sign is is_ca
        assert usage.value.digital_signature is not is_ca
        certificate.verify_directly_issued_by(ca)
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
    for certificate, purpose in (
        (server, ExtendedKeyUsageOID.SERVER_AUTH),
        (client, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert list(extended.value) == [purpose]
    alternative = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == ["localhost", "fl.example.org"]
    addresses = [str(address) for address in alternative.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.1", "::1", "10.1.2.3"]
    assert common_name(client) == "kitchen"
    uri = client.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert uri.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:fedaq:client:kitchen"]


def test_keys_are_for_their_owner_only(certs: Path) -> None:
    keys = sorted(certs.rglob("*.key"))
    assert len(keys) == 4
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_a_second_call_adds_to_what_the_first_made(certs: Path) -> None:
    before = {path: path.read_bytes() for path in certs.rglob("*.[ck]*")}
    made = issue(certs, clients=["garden"], days=2)
    assert [one.folder for one in made] == [certs / "clients" / "garden"]
    assert abs((made[0].until - datetime.now(UTC)).total_seconds() - 2 * 86400) < 60
    assert {path: path.read_bytes() for path in before} == before
    load(certs / "clients/garden/client.crt").verify_directly_issued_by(load(certs / "ca.crt"))
    issue(certs, hosts=["other.example.org"])
    alternative = (
        load(certs / "server/server.crt")
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    names = alternative.get_values_for_type(x509.DNSName)
    assert names == ["localhost", "fl.example.org", "other.example.org"]


def test_no_certificate_outlives_its_authority(certs: Path) -> None:
    (made,) = issue(certs, clients=["kitchen"], days=3650 * 2)
    assert made.until == load(certs / "ca.crt").not_valid_after_utc


def test_folders_are_read_and_know_whose_they_are(certs: Path) -> None:
    server = server_certificates(certs / "server")
    assert server.name == "FedAQ server"
    client = client_certificates(certs / "clients" / "Küche")
    assert client.name == "Küche"
    assert client.key.decode() not in repr(client)
    (certs / "clients/Küche/client.crt").unlink()
    (certs / "clients/Küche/client.key").unlink()
    without = client_certificates(certs / "clients" / "Küche")
    assert (without.name, without.certificate, without.key) == ("", b"", b"")


def swap_key(folder: Path) -> None:
    shutil.copy(folder.parent / "Küche" / "client.key", folder)


def encrypt_key(folder: Path) -> None:
    (folder / "client.key").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )


def use_server(folder: Path) -> None:
    for end in ("crt", "key"):
        shutil.copy(folder.parents[1] / f"server/server.{end}", folder / f"client.{end}")


def expire(folder: Path) -> None:
    issue(folder.parents[1], clients=["kitchen"], days=0)
    time.sleep(1.1)  # it is valid to the end of this second


def date_later(folder: Path) -> None:
    """Sign as an authority whose clock is two days ahead."""
    authority = folder.parents[1]
    key = load_pem_private_key((authority / "ca.key").read_bytes(), None)
    before = load(folder / "client.crt")
    builder = x509.CertificateBuilder(
        before.issuer, before.subject, before.public_key(), before.serial_number,
        datetime.now(UTC) + timedelta(days=2), before.not_valid_after_utc, list(before.extensions),
    )  # fmt: skip
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (folder / "client.crt").write_bytes(pem)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "another's key": (swap_key, "client.key: not the key of client.crt beside it"),
    "a key with a password": (encrypt_key, "without a password"),
    "no key": (lambda f: (f / "client.key").unlink(), "client.key: cannot be read: No such file"),
    "no certificate": (lambda f: (f / "client.crt").unlink(), "client.crt: cannot be read"),
    "no authority": (lambda f: (f / "ca.crt").unlink(), "ca.crt: cannot be read"),
    "nonsense": (lambda f: (f / "client.crt").write_text("x"), "client.crt, client.key: not a"),
    "nonsense for a CA": (lambda f: (f / "ca.crt").write_text("x"), "ca.crt: not a certificate"),
    "a server's": (use_server, "client.crt: the certificate is not a client's"),
    "of a clock ahead": (date_later, "is not valid yet; is this machine's clock right? It says 2"),
    "expired": (expire, "client.crt: the certificate has expired"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_folder_is_said(name: str, certs: Path) -> None:
    spoil, sentence = WRONG[name]
    folder = certs / "clients" / "kitchen"
    spoil(folder)
    with pytest.raises(UserError, match="certs/clients/kitchen") as wrong:
        client_certificates(folder)
    assert sentence in str(wrong.value)


def test_what_cannot_be_issued_is_said(certs: Path, tmp_path: Path) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"clients": ["a/b"]}, "no spaces or slashes"),
        ({"clients": [".."]}, "dot"),
        ({"hosts": ["a b"]}, "host name or an IP address"),
        ({"hosts": ["h:50051"]}, "without a port"),
        ({"revoked": ["nobody"]}, "no certificate for this client"),
    )
    for names, sentence in wrong:
        with pytest.raises(UserError, match=sentence):
            issue(certs, **names)
    shutil.copy(certs / "server/server.key", certs / "ca.key")
    with pytest.raises(UserError, match="not the key of ca"):
        issue(certs, clients=["garden"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        issue(tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.10", False),
        ("fl.example.org", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone
