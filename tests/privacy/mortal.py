"""Clients as processes, some of which die at another step of each round and come again.

python tests/privacy/mortal.py ADDRESS CLIENTS VICTIM...
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fedaq.process.forks import allow_in_a_program
from privacy.federation import Change, Message, kind_of, learner_of, take_part
from privacy.steps import STEPS


def _dying(life: int) -> Change:
    """Die before the step of this life is sent; after the last of them, live."""

    def change(message: Message) -> Iterable[Message]:
        if life < len(STEPS) and kind_of(message) == STEPS[life]:
            os.kill(os.getpid(), signal.SIGKILL)
        yield message

    return change


def _born(address: str, number: int, life: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(take_part(address, number, _dying(life)))
        finally:
            os._exit(0)
    return child


def main(address: str, clients: int, victims: set[int]) -> None:
    """Start the clients, and those that were killed again, until all have ended well."""
    allow_in_a_program()
    assert learner_of(1, 1)  # what takes its time is loaded before a fork
    lives = {number: 0 if number in victims else len(STEPS) for number in range(1, clients + 1)}
    living = {_born(address, number, life): number for number, life in lives.items()}
    while living:
        child, status = os.wait()
        number = living.pop(child)
        if os.WIFSIGNALED(status):
            lives[number] += 1
            living[_born(address, number, lives[number])] = number


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), set(map(int, sys.argv[3:])))
