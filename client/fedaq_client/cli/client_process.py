"""A client process from its settings to its end."""

import logging
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedaq.energy.radios import PRESETS
from fedaq.errors import UserError
from fedaq.net.client_names import RULE, is_name
from fedaq.process import stopping
from fedaq.process.logs import event
from fedaq.process.terminal import console, foreign
from fedaq.settings import ClientSettings, load_settings
from fedaq.tasks import load_task, read_data
from fedaq.tasks.hardware import device_named, use_threads
from fedaq.tasks.partition import WHOLE, Partition, parse_partition
from fedaq_client.cli.display import Display
from fedaq_client.returning import take_part
from fedaq_client.session import Progress
from fedaq_client.training import Learner, local_data
from fedaq_client.transport.access import Access, access_of
from fedaq_client.transport.connection import connect
from fedaq_client.watchdog import notify, watched

log = logging.getLogger(__name__)
# Of one attempt.
CONNECT_S = 5.0


def run_client(*, config: Path | None, flags: Mapping[str, Any], assignments: list[str]) -> None:
    """Take part in one run.

    Raises
    ------
    UserError
        If a setting is wrong, or this client and the server refuse one another.
    FedaqError
        If there was no server for too long.
    """
    settings = load_settings(config=config, flags=flags, assignments=assignments)
    own = settings.client
    access = access_of(settings.network, own.server)
    task = load_task(settings.task, settings.data)
    part = part_of(own)
    name = name_of(own, part, access)
    # One that has the machine to itself takes all of it; parts of one data set share it.
    use_threads(settings.threads, default=0 if part == WHOLE else 1, sharing=part.parts)
    everything = read_data(task, "train_data", settings.data)
    mine = local_data(everything, part, settings.partition, settings.seed)
    learner = Learner(
        task, mine, settings.seed, device_named(settings.device), own.state, settings.start_from
    )
    console.print(f"{foreign(name)}: {learner.examples} examples, server {foreign(own.server)}")
    log.info(
        "%s has %d examples", name, learner.examples,
        extra=event("started", client=name, examples=learner.examples, server=own.server),
    )  # fmt: skip
    with Display() as display:

        def on_round(done: Progress) -> None:
            display.on_round(done)
            _tell(done)

        cost = None if own.radio is None else PRESETS[own.radio].cost()

        async def participate() -> str:
            return await watched(
                take_part(
                    lambda: connect(own.server, CONNECT_S, access),
                    name,
                    learner,
                    cost,
                    on_round,
                    own.give_up_after_s,
                    on_training=display.on_training,
                    on_transfer=display.on_transfer,
                )
            )

        reason = stopping.run(participate())
    console.print(f"{foreign(name)}: {foreign(reason)}")
    log.info("%s: %s", name, reason, extra=event("run over", client=name, reason=reason))


def part_of(own: ClientSettings) -> Partition:
    """Return the part of the data that is this client's.

    Raises
    ------
    UserError
        If it is none.
    """
    return WHOLE if own.partition is None else parse_partition(own.partition)


def name_of(own: ClientSettings, part: Partition, access: Access) -> str:
    """Return the name under which this client joins.

    Raises
    ------
    UserError
        If its certificate or token is for another one, or nobody can be called that.
    """
    fallback = socket.gethostname() if part == WHOLE else f"client-{part.index + 1}"
    name = own.name or access.name or fallback
    if access.name not in ("", name):
        raise UserError(
            f"--name {name}: the certificate or token is for {access.name}; leave --name out"
        )
    if not is_name(name):
        raise UserError(f"{name!r}: {RULE}; choose another with --name")
    return name


def _tell(done: Progress) -> None:
    """Tell the service manager and the log of a finished round."""
    notify(f"STATUS=round {done.round} of {done.rounds} is done")
    log.info("round %d: the update counted", done.round, extra=event("round done", **asdict(done)))
