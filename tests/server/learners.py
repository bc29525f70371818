"""Federations of clients that learn in other ways."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from fedaq.settings import Settings
from fedaq_client.training import Learner
from fedaq_server.run import Run
from system.live import learner, live_server, take_part


async def federate_learners(
    folder: Path, settings: Settings, kinds: Sequence[type[Learner]]
) -> Run:
    """Run a client of each kind to the end of the run."""
    async with (
        live_server(settings, folder, lambda run, record: None) as (run, address),
        asyncio.TaskGroup() as group,
    ):
        for number, kind in enumerate(kinds):
            part = learner(number, len(kinds))
            part.__class__ = kind
            group.create_task(take_part(address, f"c{number}", part))
    return run
