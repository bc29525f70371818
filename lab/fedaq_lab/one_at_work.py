"""Many threads, of which one works at a time, while the others wait for answers from elsewhere.

Threads that work at once take Python's interpreter from each other, which costs more than it gains.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class OneAtWork(ThreadPoolExecutor):
    """Threads that take turns.

    Parameters
    ----------
    threads : int
    turn : threading.Lock
        Of whoever works.
    """

    def __init__(self, threads: int, turn: threading.Lock) -> None:
        super().__init__(threads, "work")
        self._turn = turn

    def submit(
        self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs
    ) -> Future[T]:
        """Have a function called when it is its turn."""

        def in_turn() -> T:
            with self._turn:
                return function(*arguments, **named)

        return super().submit(in_turn)


@contextmanager
def waiting(turn: threading.Lock) -> Iterator[None]:
    """Let others work within the block."""
    turn.release()
    try:
        yield
    finally:
        turn.acquire()
