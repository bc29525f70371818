"""How long the server waits for a client of which nothing comes."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from fedaq.v1 import federation_pb2 as pb
from fedaq_server.transport.patience import PROGRESS_BYTES, patient

PATIENCE_S = 0.4
HEARTBEAT = pb.ClientMessage(heartbeat=pb.Heartbeat())


@dataclass
class Wire:
    """A stream whose bytes arrive as told, and whose messages after as many seconds each."""

    messages_after_s: list[float]
    bytes_at: Callable[[float], float]
    began: float = field(default_factory=time.monotonic)
    looks: int = 0

    async def read(self) -> pb.ClientMessage:
        await asyncio.sleep(self.messages_after_s.pop(0))
        return HEARTBEAT

    async def write(self, frame: bytes) -> None:
        raise AssertionError

    def received_bytes(self) -> int:
        self.looks += 1
        return int(self.bytes_at(time.monotonic() - self.began))


async def listen(wire: Wire, pause_s: float = 0.0) -> float:
    """Read all messages, with a pause after each; return how long it took."""
    async with patient(wire, PATIENCE_S) as read:
        while wire.messages_after_s:
            assert await read() is HEARTBEAT
            await asyncio.sleep(pause_s)
    return time.monotonic() - wire.began


def test_whoever_is_heard_of_in_time_is_not_looked_up() -> None:
    wire = Wire([PATIENCE_S / 8] * 12, lambda at: 1)
    assert asyncio.run(listen(wire)) > 1.4 * PATIENCE_S
    assert wire.looks == 0


@pytest.mark.parametrize(
    "bytes_at",
    [
        lambda at: 0,  # nobody knows
        lambda at: 5000,
        lambda at: 5000 + PROGRESS_BYTES / 8 * (at // 0.1),  # HTTP/2 alone
    ],
    ids=["unknown", "nothing", "next to nothing"],
)
def test_silence_has_an_end(bytes_at: Callable[[float], float]) -> None:
    wire = Wire([30.0], bytes_at)
    with pytest.raises(TimeoutError):
        asyncio.run(listen(wire))
    assert PATIENCE_S <= time.monotonic() - wire.began < 20


def test_a_long_message_is_waited_for_while_it_arrives() -> None:
    wire = Wire([5 * PATIENCE_S], lambda at: 1 + 100 * PROGRESS_BYTES * at)
    assert asyncio.run(listen(wire)) >= 5 * PATIENCE_S
    assert wire.looks > 5


def test_a_message_that_stops_halfway_is_given_up() -> None:
    wire = Wire([30.0], lambda at: 1 + 100 * PROGRESS_BYTES * min(at, 3 * PATIENCE_S))
    with pytest.raises(TimeoutError):
        asyncio.run(listen(wire))
    assert 3.5 * PATIENCE_S <= time.monotonic() - wire.began < 20


def test_the_time_that_the_server_takes_itself_does_not_count() -> None:
    wire = Wire([0.0, 0.0], lambda at: 5000)
    assert asyncio.run(listen(wire, pause_s=2 * PATIENCE_S)) >= 4 * PATIENCE_S


def test_whoever_is_cancelled_is_cancelled() -> None:
    async def act() -> None:
        listening = asyncio.create_task(listen(Wire([30.0], lambda at: 0)))
        await asyncio.sleep(0)
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening

    asyncio.run(act())
