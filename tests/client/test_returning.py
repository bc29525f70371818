"""Clients that come back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.errors import FedaqError, UserError
from fedaq.v1 import federation_pb2 as pb
from fedaq_client import returning
from fedaq_client.returning import FIRST_WAIT_S, LONGEST_WAIT_S, take_part, waits
from fedaq_client.training import Learner
from fedaq_client.transport.connection import NameTakenError
from system.live import learner


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=10, max_size=40))
def test_waits_grow_to_a_limit_with_jitter(draws: list[float]) -> None:
    drawn = iter(draws)
    for number, wait_s in enumerate(islice(waits(lambda: next(drawn)), len(draws))):
        whole_s = min(FIRST_WAIT_S * 2**number, LONGEST_WAIT_S)
        assert whole_s / 2 <= wait_s <= whole_s


Attempt = Callable[[], Any]


class Lines:
    """A link that says some lines and then breaks."""

    def __init__(self, *lines: pb.ServerMessage) -> None:
        self._lines = list(lines)
        self.joins: list[pb.Join] = []

    async def send(self, frame: bytes) -> None:
        message = pb.ClientMessage.FromString(frame)
        if message.WhichOneof("kind") == "join":
            self.joins.append(message.join)

    async def receive(self) -> pb.ServerMessage:
        if not self._lines:
            raise FedaqError("the connection broke")
        return self._lines.pop(0)


WELCOME = pb.ServerMessage(
    welcome=pb.Welcome(
        protocol_version=3,
        run_id="run",
        seed=1,
        training=pb.Training(local_epochs=1, batch_size=1, learning_rate=0.1),
        heartbeat_interval_s=1000.0,
    )
)
STOPPED = pb.ServerMessage(finish=pb.Finish(reason="the server stopped"))
OVER = pb.ServerMessage(finish=pb.Finish(reason="all done", over=True))


def played(
    *attempts: Lines | FedaqError, give_up_after_s: float | None = None
) -> tuple[str, list[float]]:
    """Return how a client ends that meets these, and how long it waited in between."""
    left, slept = list(attempts), list[float]()
    part: Learner = learner(0, 5)

    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        attempt = left.pop(0)
        if isinstance(attempt, FedaqError):
            raise attempt
        yield attempt

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    reason = asyncio.run(
        take_part(connect, "anna", part, None, lambda _: None, give_up_after_s, sleep)
    )
    assert left == []
    return reason, slept


def test_a_client_tries_until_there_is_a_server() -> None:
    reason, slept = played(*[FedaqError("no server")] * 8, Lines(WELCOME, OVER))
    assert reason == "all done"
    assert len(slept) == 8
    assert max(slept[:2]) < min(slept[4:])


def test_a_client_comes_back_to_a_server_that_stopped_and_to_one_that_broke() -> None:
    first, second, third = Lines(WELCOME, STOPPED), Lines(WELCOME), Lines(WELCOME, OVER)
    reason, slept = played(first, second, third)
    assert reason == "all done"
    # Each time there was a server in between, so patience begins anew.
    assert all(wait_s <= FIRST_WAIT_S for wait_s in slept)
    processes = {join.process for link in (first, second, third) for join in link.joins}
    assert len(processes) == 1
    assert len(processes.pop()) == 8


def test_a_refusal_is_the_end() -> None:
    with pytest.raises(UserError, match="another model"):
        played(UserError("another model"))


def test_a_client_gives_up_if_it_is_told_to() -> None:
    with pytest.raises(FedaqError, match="no server") as caught:
        played(FedaqError("no server"), give_up_after_s=0.001)
    assert not isinstance(caught.value, UserError)


def test_a_name_that_is_taken_is_waited_for_and_then_the_users_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that lost its power is still there for the server for a while."""
    assert played(NameTakenError("taken"), Lines(WELCOME, OVER))[0] == "all done"
    monkeypatch.setattr(returning, "NAME_TAKEN_S", 0.001)
    with pytest.raises(UserError, match="taken"):
        played(NameTakenError("taken"))
