"""Requests of many threads, handed on several at a time."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedaq_lab import batches
from fedaq_lab.batches import Batches
from fedaq_lab.one_at_work import OneAtWork, waiting

PATIENCE_S = 30.0


def asked(collected: Batches[int, int], numbers: Sequence[int]) -> list[int]:
    with ThreadPoolExecutor(len(numbers)) as threads:
        return list(threads.map(collected.ask, numbers, timeout=PATIENCE_S))


def test_every_thread_has_the_answer_to_its_own_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LINGER_S", PATIENCE_S)
    sizes: list[int] = []

    def squares(numbers: Sequence[int]) -> list[int]:
        sizes.append(len(numbers))
        return [number**2 for number in numbers]

    collected = Batches(squares, at_once=1, most=4)
    assert asked(collected, [3]) == [9]  # nothing is known of how long it takes: it goes alone
    assert asked(collected, range(12)) == [number**2 for number in range(12)]
    assert sizes == [1, 4, 4, 4]


def test_what_takes_long_goes_alone() -> None:
    sizes: list[int] = []

    def slowly(numbers: Sequence[int]) -> Sequence[int]:
        sizes.append(len(numbers))
        time.sleep(batches.BATCH_S)
        return numbers

    assert asked(Batches(slowly, at_once=2, most=8), range(6)) == list(range(6))
    assert sizes == [1] * 6


def test_no_more_are_under_way_than_may_be() -> None:
    under_way: list[int] = []
    now, lock = 0, threading.Lock()

    def counted(numbers: Sequence[int]) -> Sequence[int]:
        nonlocal now
        with lock:
            now += 1
            under_way.append(now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return numbers

    assert asked(Batches(counted, at_once=3, most=1), range(20)) == list(range(20))
    assert max(under_way) == 3


def test_an_error_is_told_to_all_of_its_batch_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "LINGER_S", PATIENCE_S)

    def refused(numbers: Sequence[int]) -> Sequence[int]:
        if 0 in numbers:
            raise ValueError("0 is none")
        return numbers

    collected = Batches(refused, at_once=1, most=2)
    assert collected.ask(5) == 5
    with ThreadPoolExecutor(6) as threads:
        results = [threads.submit(collected.ask, number) for number in range(6)]
        failed = [each for each in results if each.exception(PATIENCE_S) is not None]
    assert len(failed) == 2
    assert {str(each.exception()) for each in failed} == {"0 is none"}


def test_one_thread_works_while_others_wait() -> None:
    turn, at_work, most, everybody = threading.Lock(), 0, 0, threading.Barrier(5)

    def step() -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.01)
        at_work -= 1
        with waiting(turn):
            everybody.wait(PATIENCE_S)  # all five are here at once

    with OneAtWork(5, turn) as threads:
        for each in [threads.submit(step) for _ in range(5)]:
            each.result(PATIENCE_S)
    assert most == 1
