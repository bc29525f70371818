"""Honest clients on real sockets beside hostile ones, and what a run leaves behind."""

import asyncio
from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedaq.codec.model import ModelSpec
from fedaq_client.events import Sent
from fedaq_server.run import Run
from system.live import learner, live_server, settings_of, take_part

HONEST = 2
ROUNDS = 3
BITS = 3
Hostile = Callable[[str, ModelSpec], Coroutine[Any, Any, None]]


async def federate(
    folder: Path, *hostile: Hostile, honest: int = HONEST, **flags: Any
) -> tuple[Run, list[list[int]]]:
    """Run honest clients and hostile ones to the end; return the rounds in which each counted."""
    # What follows from repeated misbehaviour is tested in tests/server/test_conduct.py.
    lenient = {"limits__strikes": 1000, "limits__norm_factor": 0, "limits__examples_factor": 1e6}
    settings = settings_of(honest + len(hostile), **{"rounds": ROUNDS, **lenient, **flags})
    counted: list[list[int]] = [[] for _ in range(honest)]

    def count(number: int) -> Callable[[Sent], None]:
        return lambda progress: counted[number].append(progress.round)

    async with (
        live_server(settings, folder, lambda run, record: None) as (run, address),
        asyncio.TaskGroup() as group,
    ):
        for number in range(honest):
            part = take_part(address, f"honest-{number}", learner(number, honest), count(number))
            group.create_task(part)
        for act in hostile:
            group.create_task(act(address, run.spec))
    return run, counted


def result_of(folder: Path) -> str:
    return sha256((folder / "model.safetensors").read_bytes()).hexdigest()
