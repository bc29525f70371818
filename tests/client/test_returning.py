"""Clients that come back."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from fedaq.errors import FedaqError, UserError
from fedaq.v1 import federation_pb2 as pb
from fedaq_client import returning
from fedaq_client.returning import FIRST_WAIT_S, LONGEST_WAIT_S, Waits, take_part
from fedaq_client.training import Learner
from fedaq_client.transport.connection import NameTakenError, NobodyListensError, connect
from fedaq_server.transport.roster import return_window_s
from system.commands import free_port
from system.live import learner


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=10, max_size=40))
def test_waits_grow_to_a_limit_with_jitter(draws: list[float]) -> None:
    drawn = iter(draws)
    waits = Waits(draw=lambda: next(drawn))
    for number in range(len(draws)):
        whole_s = min(FIRST_WAIT_S * 2**number, LONGEST_WAIT_S)
        assert whole_s / 2 <= waits.next_s(is_gone=False) <= whole_s


def returns_s(clients: int, down_s: float, *, said: bool) -> list[float]:
    """Return when clients are back, in seconds from when a server is that was gone for so long."""
    generator = random.Random(f"{clients} {down_s} {said}")
    found = []
    for _ in range(clients):
        waits = Waits(return_window_s(clients), generator.random)
        # One that said nothing is looked for at once, as one whose connection alone broke.
        at = waits.next_s(is_gone=said)
        while at < down_s:
            at += waits.next_s(is_gone=True)
        found.append(at - down_s)
    return sorted(found)


@profile(max_examples=25, deadline=None)
@given(st.sampled_from([1000, 5000]), st.floats(1.5, 120), st.booleans())
def test_thousands_of_clients_come_back_one_after_another(
    clients: int, down_s: float, said: bool
) -> None:
    back = returns_s(clients, down_s, said=said)
    assert back[-1] < 30
    for first, at in enumerate(back):
        assert bisect_left(back, at + 1) - first <= clients / 10


@pytest.mark.parametrize("down_s", [0.0, 2.0, 30.0])
def test_a_few_clients_are_back_as_soon_as_one(down_s: float) -> None:
    alone, few = (returns_s(clients, down_s, said=True)[-1] for clients in (1, 10))
    assert few <= max(LONGEST_WAIT_S, alone + 1)


def test_a_client_that_alone_lost_the_server_is_back_at_once_however_many_there_are() -> None:
    assert Waits(return_window_s(5000)).next_s(is_gone=False) <= FIRST_WAIT_S


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


def first_of(lines: Lines) -> Lines:
    """Return a link that says the same anew."""
    return Lines(*lines._lines)


def spread(window_s: float) -> pb.ServerMessage:
    changed = pb.ServerMessage()
    changed.CopyFrom(WELCOME)
    changed.welcome.return_window_s = window_s
    return changed


def test_clients_spread_over_the_window_that_the_server_told_them() -> None:
    gone = NobodyListensError("gone")
    first, again = Lines(spread(100.0), STOPPED), Lines(spread(100.0), OVER)
    waits = [played(first_of(first), gone, gone, first_of(again))[1] for _ in range(20)]
    # Each has a moment of its own, and keeps it.
    assert max(each[0] for each in waits) - min(each[0] for each in waits) > 30
    assert {wait_s for each in waits for wait_s in each[1:]} == {100.0}


@pytest.mark.parametrize("window_s", [-1.0, float("nan"), 1e9])
def test_a_window_that_cannot_be_is_refused(window_s: float) -> None:
    with pytest.raises(FedaqError, match="which cannot be"):
        played(Lines(spread(window_s)), give_up_after_s=0.001)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_where_nobody_listens_a_client_may_try_once(host: str) -> None:
    async def attempt() -> None:
        async with connect(f"{host}:{free_port()}", 60.0, once=True):
            pass

    with pytest.raises(NobodyListensError, match="no server at"):
        asyncio.run(asyncio.wait_for(attempt(), 30))
