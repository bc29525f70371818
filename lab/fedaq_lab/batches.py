"""What many threads ask for, handed on several at a time.

To hand something to another process costs milliseconds, whatever it is. Where the answer takes no
longer than that, many requests go together; where it takes long, each goes alone, so that all who
answer have something to do.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

# What a batch should take, and how long one that is not full waits for more.
BATCH_S, LINGER_S = 0.1, 0.05


@dataclass(eq=False)
class _Asked(Generic[Q, A]):
    """A request; its thread is told in the end whether it has to hand on a batch itself."""

    request: Q
    leads: "Future[bool]" = field(default_factory=Future)
    answer: "Future[A]" = field(default_factory=Future)


class Batches(Generic[Q, A]):
    """Collects requests of threads; one of those that wait hands on a batch.

    Parameters
    ----------
    answer : callable
        Takes requests, and returns their answers in the same order; called by several threads.
    at_once : int
        Batches that may be under way at a time.
    most : int
        Requests of a batch, at the most.
    """

    def __init__(
        self, answer: Callable[[Sequence[Q]], Sequence[A]], at_once: int, most: int
    ) -> None:
        self._answer, self._at_once, self._most = answer, at_once, most
        self._came = threading.Condition()
        self._waiting: deque[_Asked[Q, A]] = deque()
        self._leaders = 0
        self._each_s = BATCH_S

    def ask(self, request: Q) -> A:
        """Wait for the answer to a request.

        Raises
        ------
        Exception
            That answering the batch raised.
        """
        asked: _Asked[Q, A] = _Asked(request)
        with self._came:
            if self._leaders < self._at_once:
                self._leaders += 1
                asked.leads.set_result(True)
            else:
                self._waiting.append(asked)
                if len(self._waiting) >= self._size - 1:
                    self._came.notify_all()
        if asked.leads.result():
            self._lead(asked)
        return asked.answer.result()

    @property
    def _size(self) -> int:
        return max(1, min(self._most, int(BATCH_S / self._each_s)))

    def _lead(self, asked: _Asked[Q, A]) -> None:
        with self._came:
            if self._size > 1:
                self._came.wait_for(lambda: len(self._waiting) >= self._size - 1, LINGER_S)
            others = min(self._size - 1, len(self._waiting))
            batch = [asked, *(self._waiting.popleft() for _ in range(others))]
        began_s = time.monotonic()
        try:
            answers = self._answer([each.request for each in batch])
            for each, answer in zip(batch, answers, strict=True):
                each.answer.set_result(answer)
        except BaseException as error:
            for each in batch:
                each.answer.set_exception(error)
        finally:
            with self._came:
                self._note((time.monotonic() - began_s) / len(batch))
                self._pass_on()
            for each in batch[1:]:
                each.leads.set_result(False)

    def _note(self, each_s: float) -> None:
        # The first ones wait for processes that begin.
        self._each_s = min(each_s, (self._each_s + each_s) / 2)

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().leads.set_result(True)
        else:
            self._leaders -= 1
