"""Work on an event loop of its own, whoever waits for it."""

import asyncio
import threading
import time
from typing import Any

import pytest

from fedaq.process.background import Background, Tell


async def counted(tell: Tell) -> int:
    for number in range(3):
        await asyncio.sleep(0.01)
        tell(seen.append, (number, threading.current_thread().name))
    return 3


seen: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def numbers_seen_here() -> list[int]:
    def note(number: int) -> None:
        found.append((number, threading.get_ident()))

    async def work(tell: Tell) -> str:
        for number in range(3):
            tell(note, number)
        return "done"

    found: list[tuple[int, int]] = []
    assert Background(work).result() == "done"
    assert {thread for _, thread in found} == {threading.get_ident()}
    return [number for number, _ in found]


def test_what_is_told_is_called_where_the_result_is_waited_for() -> None:
    assert numbers_seen_here() == [0, 1, 2]


def test_it_works_on_a_running_loop_and_in_a_thread() -> None:
    async def on_a_loop() -> None:
        assert await Background(counted).aresult() == 3
        assert [number for number, _ in seen] == [0, 1, 2]
        assert numbers_seen_here() == [0, 1, 2]  # as in a notebook, whose loop runs

    asyncio.run(on_a_loop())
    thread = threading.Thread(target=numbers_seen_here)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_an_error_of_the_work_or_of_a_call_is_raised() -> None:
    async def fails(tell: Tell) -> None:
        raise KeyError("work")

    ended: list[bool] = []

    async def tells(tell: Tell) -> None:
        tell({}.__getitem__, "call")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    for work, part in ((fails, "work"), (tells, "call")):
        with pytest.raises(KeyError, match=part):
            Background(work).result()
        with pytest.raises(KeyError, match=part):
            asyncio.run(Background(work).aresult())
    assert ended == [True, True]  # the work was stopped before


def test_a_stop_cancels_the_work_from_any_thread_and_at_any_time() -> None:
    async def endless(tell: Tell) -> None:
        tell(threading.Timer(0.05, background.stop).start)
        await asyncio.sleep(60)

    background = Background(endless)
    began_s = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        background.result()
    background = Background(endless)
    background.stop()
    with pytest.raises(asyncio.CancelledError):
        background.result()
    background.stop()
    assert time.monotonic() - began_s < 30


def test_who_is_cancelled_while_waiting_has_the_work_stopped_first() -> None:
    ended: list[bool] = []

    async def endless(tell: Tell) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.append(True)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Background(endless).aresult()
        assert ended == [True]

    asyncio.run(impatient())
