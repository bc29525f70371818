"""Small runs with masks, with noise and with both, where two of six clients change what they send.

The server is in this process: what it must not raise is seen as it is.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from fedaq.codec.chunks import Chunk
from fedaq.v1 import federation_pb2 as pb
from fuzz.live import CHANGED, PATIENCE_S, Count, FindingError
from fuzz.mutation import mutate
from privacy.federation import Change, Message, federate

CLIENTS, CHANGING, ROUNDS = 6, (2, 4), 2
NOISY: dict[str, Any] = {"privacy__epsilon": 30.0, "fedaq__uplink_resolution": None}
WAYS: dict[str, dict[str, Any]] = {
    "masked": {},
    "noisy": {"privacy__secure_aggregation": False, **NOISY},
    "masked, noisy": NOISY,
}
REPEATED = 0.1


def changing(random: Random, count: Count) -> Change:
    """Return what changes messages of a client here and there, but not its first: its join."""
    joined = False

    def change(message: Message) -> Iterable[Message]:
        nonlocal joined
        count.messages += 1
        if not joined or isinstance(message, Chunk) or random.random() > CHANGED:
            joined = True
            yield message
            return
        other = pb.ClientMessage()
        other.CopyFrom(message)
        mutate(other, random)
        yield other
        if random.random() < REPEATED:
            yield other

    return change


async def private_runs(way: str, messages: int, seed: int, folder: Path) -> Count:
    """Carry out runs until so many messages were sent by those who change them.

    Raises
    ------
    FindingError
        If a run does not end, or not with all of its rounds.
    """
    count = Count()
    while count.messages < messages:
        about = f"{way}, {seed}, {count.messages}"
        changes = {n: changing(Random(f"{about}, {n}"), count) for n in CHANGING}
        try:
            async with asyncio.timeout(PATIENCE_S):
                done = await federate(
                    folder / f"{way}-{count.messages}", changes, CLIENTS, rounds=ROUNDS,
                    network__round_deadline_s=1.0, network__return_wait_s=0.05, **WAYS[way],
                )  # fmt: skip
        except Exception as error:
            raise FindingError(f"{about}: {error!r}") from error
        if len(done.records) != ROUNDS:
            raise FindingError(f"{about}: {len(done.records)} rounds of {ROUNDS}")
    return count
