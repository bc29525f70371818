"""Keys are proved by certificates: nobody signs for another, and no client is invented."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedaq.net.credentials import client_certificates, server_certificates
from fedaq.privacy.keys import Keys, authority_of, signer_of, statement
from fedaq.privacy.member import MaskingError, Member, Peer
from fedaq.privacy.neighbours import circle_of
from fedaq.privacy.sizes import CERTIFICATE_BYTES, SIGNATURE_BYTES
from fedaq_client.events import Event, Refused
from fedaq_client.transport.access import Access
from fedaq_server.identity.certificates import issue
from privacy.federation import expected, federate

CONTEXT = b"run 1"
NAMES = ("anna", "bert", "cleo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    issue(folder / "ours", hosts=["localhost"], clients=NAMES)
    issue(folder / "others", hosts=["localhost"], clients=["anna"])
    return folder


def _member(folder: Path, name: str, authority: str = "ours") -> Member:
    own = client_certificates(folder / authority / "clients" / name)
    return Member(name, CONTEXT, signer_of(own), authority_of(own))


def test_keys_that_are_signed_by_their_owner_are_proved(folder: Path) -> None:
    authority = authority_of(server_certificates(folder / "ours" / "server"))
    public = _member(folder, "anna").public
    assert authority.why_not(CONTEXT, "anna", public) == ""
    assert 0 < len(public.certificate) <= CERTIFICATE_BYTES
    assert 0 < len(public.signature) <= SIGNATURE_BYTES


def test_nobody_signs_for_another(folder: Path) -> None:
    authority = authority_of(server_certificates(folder / "ours" / "server"))
    anna, bert = _member(folder, "anna").public, _member(folder, "bert").public
    assert "certificate of another" in authority.why_not(CONTEXT, "bert", anna)
    mixed = replace(anna, certificate=bert.certificate)
    assert "signed by another" in authority.why_not(CONTEXT, "bert", mixed)
    assert "not signed" in authority.why_not(CONTEXT, "bert", Keys().public())
    stranger = _member(folder, "anna", "others").public
    assert "not signed by our ca.crt" in authority.why_not(CONTEXT, "anna", stranger)
    garbled = replace(anna, certificate=anna.certificate[:-5])
    assert "cannot be read" in authority.why_not(CONTEXT, "anna", garbled)


def test_a_signature_is_of_one_round_and_one_set_of_keys(folder: Path) -> None:
    authority = authority_of(server_certificates(folder / "ours" / "server"))
    public = _member(folder, "anna").public
    assert "signed by another" in authority.why_not(b"run 2", "anna", public)
    for part in ("cipher", "mask", "seed_digest"):
        other = replace(public, **{part: bytes(32)})
        assert "signed by another" in authority.why_not(CONTEXT, "anna", other)


def test_a_statement_cannot_be_read_in_two_ways() -> None:
    keys = Keys().public()
    assert statement(b"run 1", "0anna", keys) != statement(b"run 10", "anna", keys)


def test_a_client_refuses_those_whom_the_server_invents(folder: Path) -> None:
    members = {number: _member(folder, name) for number, name in enumerate(NAMES, 1)}
    peers = {number: Peer(NAMES[number - 1], members[number].public) for number in (2, 3)}
    invented = {**peers, 3: Peer("cleo", Keys().public())}
    with pytest.raises(MaskingError, match="of cleo, its keys are not signed: the server may"):
        members[1].share(1, invented, circle_of(3))
    assert members[1].share(1, peers, circle_of(3)).keys() == {2, 3}


def test_over_tls_a_client_that_signs_with_the_key_of_another_is_refused(tmp_path: Path) -> None:
    names = [f"client-{number}" for number in range(1, 6)]
    issue(tmp_path / "certs", hosts=["127.0.0.1"], clients=names)
    certificates = {
        number: client_certificates(tmp_path / "certs" / "clients" / f"client-{number}")
        for number in range(1, 6)
    }
    events: dict[int, list[Event]] = {2: []}
    done = asyncio.run(
        federate(
            tmp_path / "run", {}, 5, events=events,
            accesses={number: Access(own) for number, own in certificates.items()},
            signers={**certificates, 2: certificates[3]},
            network__tls=tmp_path / "certs" / "server",
        )
    )  # fmt: skip
    np.testing.assert_array_equal(done.model, np.float32(expected({1, 3, 4, 5})))
    [refused] = [event for event in events[2] if isinstance(event, Refused)]
    assert "its keys come with the certificate of another" in refused.message
