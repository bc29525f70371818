"""What a federation over real sockets sends, against what its payloads need."""

import asyncio
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import pytest

from fedaq.settings import load_settings
from fedaq_client.session import Session
from fedaq_client.training import Learner
from fedaq_client.transport.connection import connect
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.serve import serve
from fedaq_server.transport.tcp_counter import NoWire, socket_counter
from wire.noise_task import SHAPES, task
from wire.relay import Relay, relay_to

ELEMENTS = [999 * 1000, 997, 3]
TIMEOUT_S = 60


@dataclass(frozen=True)
class Traffic:
    """A run's records, what had passed the relay at each of them, and in the end."""

    records: list[RoundRecord]
    passed: list[tuple[int, int]]
    relay: Relay


async def federation(folder: Path, uplink_bits: int, downlink_bits: int, rounds: int) -> Traffic:
    """Run a server and one client, connected through a counting relay."""
    settings = load_settings(
        environment={},
        flags={
            "task": "wire.noise_task:task",
            "clients": 1,
            "rounds": rounds,
            "scheme": "fixed",
            "network.port": 0,
            "fixed.uplink_bits": uplink_bits,
            "fixed.downlink_bits": downlink_bits,
        },
    )
    passed: list[tuple[int, int]] = []
    run = Run(settings, Ledger(folder), lambda _: passed.append((relay.uplink, relay.downlink)))
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(run, port.set_result))
    async with asyncio.timeout(TIMEOUT_S), relay_to(await port) as relay:
        learner = Learner(task, task.train_data(None))
        async with connect(relay.address, TIMEOUT_S) as link:
            await Session(link, "client-1", learner, None, lambda _: None).participate()
        await server
    return Traffic(run.records, passed, relay)


def packed_with_headers(bits: int) -> int:
    return sum(ceil(elements * bits / 8) + (6 if bits == 32 else 16) for elements in ELEMENTS)


def test_the_model_has_a_million_parameters() -> None:
    assert sum(ELEMENTS) == 999_000 + 1_000 == 1_000_000
    assert [tuple(p.shape) for p in task.model().parameters()] == list(SHAPES)
    assert [p.numel() for p in task.model().parameters()] == ELEMENTS


@pytest.mark.parametrize(
    ("uplink_bits", "downlink_bits"), [(1, 1), (3, 3), (8, 8), (32, 32), (1, 32), (32, 1)]
)
def test_the_wire_carries_little_more_than_the_payload(
    tmp_path: Path, uplink_bits: int, downlink_bits: int
) -> None:
    """Everything is counted, from the first byte of the connection to the last."""
    traffic = asyncio.run(federation(tmp_path, uplink_bits, downlink_bits, rounds=1))
    [record] = traffic.records
    assert (record.uplink_bits, record.downlink_bits) == (uplink_bits, downlink_bits)
    assert record.uplink_payload_bytes == packed_with_headers(uplink_bits)
    assert record.downlink_payload_bytes == packed_with_headers(downlink_bits)
    assert traffic.relay.connections == 1
    for wire, payload in (
        (traffic.relay.uplink, record.uplink_payload_bytes),
        (traffic.relay.downlink, record.downlink_payload_bytes),
    ):
        assert payload < wire <= 1.01 * payload + 4096


def test_the_record_of_every_round_has_the_bytes_that_passed_in_it(tmp_path: Path) -> None:
    """The server asks its own sockets; the relay counts outside of it."""
    if isinstance(socket_counter(0), NoWire):
        pytest.skip("this system does not count the bytes of a socket")
    traffic = asyncio.run(federation(tmp_path, uplink_bits=3, downlink_bits=8, rounds=4))
    before = (0, 0)
    for record, passed in zip(traffic.records, traffic.passed, strict=True):
        uplink, downlink = (now - then for now, then in zip(passed, before, strict=True))
        # What is on its way between the two at that moment is a ping or an acknowledgement.
        assert record.uplink_wire_bytes == pytest.approx(uplink, abs=256)
        assert record.downlink_wire_bytes == pytest.approx(downlink, abs=256)
        assert record.uplink_payload_bytes < (record.uplink_wire_bytes or 0)
        assert record.downlink_payload_bytes < (record.downlink_wire_bytes or 0)
        before = passed
    assert len(traffic.records) == 4
    counted = [
        sum(record.uplink_wire_bytes or 0 for record in traffic.records),
        sum(record.downlink_wire_bytes or 0 for record in traffic.records),
    ]
    # The good-byes pass after the last record, and are in none (wire-format.md, section 10).
    whole = [traffic.relay.uplink, traffic.relay.downlink]
    assert all(0 < ahead - mine < 512 for mine, ahead in zip(counted, whole, strict=True))
