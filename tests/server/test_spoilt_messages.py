"""Whatever bytes a client sends, they are refused or do no harm, and the record stays JSON."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from types import NoneType

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedaq.errors import FedaqError
from fedaq_client.session import Session
from fedaq_server.identity.caller import JoinRefusedError
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.transport.service import serve_client
from fedaq_server.transport.tcp_counter import NoWire
from server.attacks import (
    INF,
    NAN,
    Mutilated,
    every_round,
    federate,
    learner,
    result_of,
    settings_of,
)
from server.run_files import write_run
from system.live import live_server
from system.raw_client import RawClient

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong_unseen")


def no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def spoilt(how: str, place: float, piece: bytes) -> Callable[[bytes], list[bytes]]:
    """Return a way to spoil a message, at a place between its beginning (0) and its end (1)."""

    def spoil(frame: bytes) -> list[bytes]:
        at = round(place * len(frame))
        return {
            "drop": [],
            "repeat": [frame, frame],
            "cut": [frame[:at]],
            "change": [frame[:at] + piece + frame[at + len(piece) :]],
            "insert": [frame[:at] + piece + frame[at:]],
        }[how]

    return spoil


@pytest.fixture(scope="module")
def empty_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one round to which nobody brought anything."""
    folder = tmp_path_factory.mktemp("empty")

    async def attack(client: RawClient, number: int) -> None:
        await client.report(number, ranges=[])

    async def run_alone() -> None:
        async with live_server(settings_of(1, rounds=1), folder) as (run, address):
            await every_round(attack)(address, run.spec)

    asyncio.run(run_alone())
    return folder


def test_a_round_without_updates_has_no_training_loss(empty_round: Path) -> None:
    [entry] = json.loads((empty_round / "run.json").read_text(), parse_constant=no_json)["rounds"]
    assert entry["train_loss"] is None
    assert (entry["clients"], entry["uplink_payload_bytes"], entry["uplink_bits"]) == (0, 0, 0)


# Join, report, header and the chunks of a 3-bit update of digits in chunks of 2,048 bytes.
MESSAGES = 7


@given(
    number=st.integers(0, MESSAGES - 1),
    how=st.sampled_from(["drop", "repeat", "cut", "change", "insert"]),
    place=st.floats(0, 1),
    piece=st.binary(min_size=1, max_size=12),
)
@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_spoilt_message_is_refused_or_does_no_harm(
    number: int, how: str, place: float, piece: bytes, tmp_path: Path, empty_round: Path
) -> None:
    """The run ends; an update counts whole or leaves the model as it was."""
    assume(number > 0 or how != "drop")  # who does not join is not there
    flags = {
        "network__chunk_bytes": 2048,
        "network__round_deadline_s": 0.3,
        "network__join_timeout_s": 20.0,
    }
    folder = Path(mkdtemp(dir=tmp_path))
    run = Run(settings_of(1, rounds=1, **flags), Ledger(folder), lambda record: None)
    link = Mutilated(asyncio.Queue(), asyncio.Queue(), number, spoilt(how, place, piece))
    session = Session(link, "anna", learner(), None, lambda _: None)

    async def federate_in_memory() -> None:
        client = asyncio.create_task(session.participate())
        stream = asyncio.create_task(serve_client(run.admission, link))
        rounds = asyncio.create_task(run.rounds(NoWire()))
        await asyncio.wait({stream, rounds}, return_when=asyncio.FIRST_COMPLETED)
        if stream.done() and isinstance(stream.exception(), JoinRefusedError) and number == 0:
            rounds.cancel()  # nobody joined
        await asyncio.wait({rounds})
        client.cancel()
        stream.cancel()
        ends = await asyncio.gather(client, stream, rounds, return_exceptions=True)
        expected = (asyncio.CancelledError, JoinRefusedError, FedaqError, str, NoneType)
        assert all(isinstance(end, expected) for end in ends), ends

    asyncio.run(federate_in_memory())
    if run.records and run.records[0].left_out:
        assert result_of(folder) == result_of(empty_round)  # what was broadcast


def test_the_record_stays_json(tmp_path: Path) -> None:
    """The largest loss that is accepted does not turn a sum into infinity."""

    async def attack(client: RawClient, number: int) -> None:
        await client.report(number, train_loss=3.4e38)
        header = client.header(number, tuple((await client.receive("grant")).grant.uplink_bits))
        await client.announce(header)
        await client.chunk(number, 0, bytes(header.code_bytes))
        await client.receive("receipt")

    asyncio.run(federate(tmp_path, every_round(attack)))
    json.loads((tmp_path / "run.json").read_text(), parse_constant=no_json)


def test_the_record_of_a_diverged_model_stays_json(tmp_path: Path) -> None:
    record = RoundRecord(
        round=1, test_accuracy=0.1, test_loss=NAN, train_loss=INF, uplink_bits=3.0,
        downlink_bits=3.0, uplink_payload_bytes=1, downlink_payload_bytes=1,
        catch_up_payload_bytes=0, uplink_wire_bytes=None, downlink_wire_bytes=2, energy_j=1.0,
        price=0.0, clients=1, left_out=0, seconds=1.0,
    )  # fmt: skip
    write_run(tmp_path, {}, [record])
    [entry] = json.loads((tmp_path / "run.json").read_text(), parse_constant=no_json)["rounds"]
    assert entry["test_loss"] is entry["train_loss"] is entry["uplink_wire_bytes"] is None
    assert (entry["test_accuracy"], entry["downlink_wire_bytes"]) == (0.1, 2)
