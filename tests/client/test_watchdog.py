"""What a service manager hears of a client."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedaq_client.watchdog import notify, watched


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "notify"))
        there.setblocking(False)
        yield there


def heard(manager: socket.socket) -> list[str]:
    states = []
    while True:
        try:
            states.append(manager.recv(100).decode())
        except BlockingIOError:
            return states


def watch(manager: socket.socket, **variables: str) -> list[str]:
    asyncio.run(
        watched(asyncio.sleep(0.2, "done"), {"NOTIFY_SOCKET": manager.getsockname(), **variables})
    )
    return heard(manager)


def test_a_client_says_that_it_is_ready_alive_and_at_its_end(manager: socket.socket) -> None:
    first, *beats, last = watch(manager, WATCHDOG_USEC="100000")
    assert (first, last) == ("READY=1", "STOPPING=1")
    assert 2 <= len(beats) <= 5
    assert set(beats) == {"WATCHDOG=1"}


def test_a_loop_that_stands_still_says_nothing(manager: socket.socket) -> None:
    def stall() -> None:
        heard(manager)
        time.sleep(0.2)
        assert heard(manager) == []

    async def stalled() -> None:
        await asyncio.sleep(0.05)
        stall()

    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "20000"}
    asyncio.run(watched(stalled(), environment))


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": str(os.getpid() + 1)},
    ],
)
def test_without_a_watchdog_of_ours_there_are_no_beats(
    manager: socket.socket, variables: dict[str, str]
) -> None:
    assert watch(manager, **variables) == ["READY=1", "STOPPING=1"]


def test_a_manager_that_is_gone_or_absent_ends_nothing(tmp_path: Path) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notify("READY=1", {})


def test_a_manager_that_reads_nothing_holds_nobody_up(manager: socket.socket) -> None:
    for _ in range(1000):
        notify("WATCHDOG=1", {"NOTIFY_SOCKET": manager.getsockname()})
    assert set(heard(manager)) == {"WATCHDOG=1"}
