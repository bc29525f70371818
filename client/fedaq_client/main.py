"""A client process from its settings to its end."""

import logging
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fedaq import stopping
from fedaq.energy import RadioCost
from fedaq.logs import event
from fedaq.partition import WHOLE, parse_partition
from fedaq.radios import preset
from fedaq.settings import load_settings
from fedaq.tasks import load_task
from fedaq.terminal import console, foreign
from fedaq_client.connection import connect
from fedaq_client.session import Progress, Session
from fedaq_client.training import Learner, local_data

log = logging.getLogger(__name__)


def run_client(
    *,
    server: str,
    name: str | None,
    partition: str | None,
    radio: str | None,
    connect_timeout_s: float,
    config: Path | None,
    flags: Mapping[str, Any],
    assignments: list[str],
) -> None:
    """Take part in one run.

    Raises
    ------
    UserError
        If a setting is wrong, there is no server, or it refuses this client.
    FedaqError
        If the connection breaks.
    """
    settings = load_settings(config=config, flags=flags, assignments=assignments)
    task = load_task(settings.task, settings.data)
    part = WHOLE if partition is None else parse_partition(partition)
    cost = None if radio is None else preset(radio).cost()
    if name is None:
        name = socket.gethostname() if part == WHOLE else f"client-{part.index + 1}"
    torch.set_num_threads(1)
    mine = local_data(task.train_data(settings.data), part, settings.partition, settings.seed)
    learner = Learner(task, mine, settings.seed)
    console.print(f"{foreign(name)}: {learner.examples} examples, server {foreign(server)}")
    log.info(
        "%s has %d examples", name, learner.examples,
        extra=event("started", client=name, examples=learner.examples, server=server),
    )  # fmt: skip
    reason = stopping.run(_participate(server, connect_timeout_s, name, learner, cost))
    console.print(f"{foreign(name)}: {foreign(reason)}")
    log.info("%s: %s", name, reason, extra=event("run over", client=name, reason=reason))


async def _participate(
    server: str, timeout_s: float, name: str, learner: Learner, radio: RadioCost | None
) -> str:
    async with connect(server, timeout_s) as link:
        return await Session(link, name, learner, radio, _show).participate()


def _show(progress: Progress) -> None:
    console.print(
        f"round {progress.round}/{progress.rounds}: train loss {progress.train_loss:.4f}, "
        f"{progress.downlink_bits:.2f} bits down, {progress.uplink_bits:.2f} up"
    )
    log.info(
        "round %d: the update counted", progress.round,
        extra=event("round done", **asdict(progress)),
    )  # fmt: skip
