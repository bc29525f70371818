"""A client process from its settings to its end."""

import logging
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fedaq import stopping
from fedaq.errors import UserError
from fedaq.logs import event
from fedaq.partition import WHOLE, Partition, parse_partition
from fedaq.radios import preset
from fedaq.settings import load_settings
from fedaq.tasks import load_task
from fedaq.terminal import console, foreign
from fedaq_client.access import access_of
from fedaq_client.connection import connect
from fedaq_client.returning import take_part
from fedaq_client.session import Progress
from fedaq_client.training import Learner, local_data

log = logging.getLogger(__name__)
# Of one attempt.
CONNECT_S = 5.0


def run_client(
    *,
    server: str,
    name: str | None,
    partition: str | None,
    radio: str | None,
    give_up_after_s: float | None,
    config: Path | None,
    flags: Mapping[str, Any],
    assignments: list[str],
) -> None:
    """Take part in one run.

    Raises
    ------
    UserError
        If a setting is wrong, or this client and the server refuse one another, or there was
        none for too long.
    """
    settings = load_settings(config=config, flags=flags, assignments=assignments)
    access = access_of(settings.network, server)
    task = load_task(settings.task, settings.data)
    part = WHOLE if partition is None else parse_partition(partition)
    cost = None if radio is None else preset(radio).cost()
    name = name or access.name or _name_of(part)
    if access.name not in ("", name):
        raise UserError(
            f"--name {name}: the certificate or token is for {access.name}; leave --name out"
        )
    torch.set_num_threads(1)
    mine = local_data(task.train_data(settings.data), part, settings.partition, settings.seed)
    learner = Learner(task, mine, settings.seed)
    console.print(f"{foreign(name)}: {learner.examples} examples, server {foreign(server)}")
    log.info(
        "%s has %d examples", name, learner.examples,
        extra=event("started", client=name, examples=learner.examples, server=server),
    )  # fmt: skip
    reason = stopping.run(
        take_part(
            lambda: connect(server, CONNECT_S, access), name, learner, cost, _show, give_up_after_s
        )
    )
    console.print(f"{foreign(name)}: {foreign(reason)}")
    log.info("%s: %s", name, reason, extra=event("run over", client=name, reason=reason))


def _name_of(part: Partition) -> str:
    return socket.gethostname() if part == WHOLE else f"client-{part.index + 1}"


def _show(progress: Progress) -> None:
    console.print(
        f"round {progress.round}/{progress.rounds}: train loss {progress.train_loss:.4f}, "
        f"{progress.downlink_bits:.2f} bits down, {progress.uplink_bits:.2f} up"
    )
    log.info(
        "round %d: the update counted", progress.round,
        extra=event("round done", **asdict(progress)),
    )  # fmt: skip
