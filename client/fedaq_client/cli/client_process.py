"""A client process from its settings to its end."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedaq.energy.radios import PRESETS
from fedaq.process import stopping
from fedaq.process.logs import event
from fedaq.process.terminal import console, foreign
from fedaq.settings import load_settings
from fedaq.tasks import load_task, read_data
from fedaq.tasks.hardware import use_threads
from fedaq.tasks.partition import WHOLE
from fedaq_client.cli.display import Display
from fedaq_client.events import Event, Sent
from fedaq_client.learners import learner_of
from fedaq_client.means import means_of
from fedaq_client.naming import name_of, part_of
from fedaq_client.privacy import privacy_of
from fedaq_client.returning import CONNECT_S, take_part
from fedaq_client.transport.access import servers_of
from fedaq_client.transport.connection import in_turn
from fedaq_client.watchdog import notify, watched

log = logging.getLogger(__name__)


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
    servers = servers_of(settings.network, own)
    task = load_task(settings.task, settings.data)
    part = part_of(own)
    name = name_of(own, part, servers[0][1])
    # One that has the machine to itself takes all of it; parts of one data set share it.
    use_threads(settings.threads, default=0 if part == WHOLE else 1, sharing=part.parts)
    everything = read_data(task, "train_data", settings.data)
    learner = learner_of(task, everything, part, settings, state=own.state)
    console.print(f"{foreign(name)}: {learner.examples} examples, server {foreign(own.server)}")
    log.info(
        "%s has %d examples", name, learner.examples,
        extra=event("started", client=name, examples=learner.examples, server=own.server),
    )  # fmt: skip
    with Display() as display:

        def on_event(told: Event) -> None:
            if isinstance(told, Sent):
                display.on_round(told)
                _tell(told)

        cost = None if own.radio is None else PRESETS[own.radio].cost()

        async def participate() -> str:
            return await watched(
                take_part(
                    in_turn(servers, CONNECT_S),
                    name,
                    learner,
                    cost,
                    on_event,
                    own.give_up_after_s,
                    on_training=display.on_training,
                    on_transfer=display.on_transfer,
                    means=means_of(own),
                    privacy=privacy_of(settings, servers[0][1].certificates),
                )
            )

        reason = stopping.run(participate())
    console.print(f"{foreign(name)}: {foreign(reason)}")
    log.info("%s: %s", name, reason, extra=event("run over", client=name, reason=reason))


def _tell(done: Sent) -> None:
    """Tell the service manager and the log of a finished round."""
    notify(f"STATUS=round {done.round} of {done.rounds} is done")
    log.info("round %d: the update counted", done.round, extra=event("round done", **asdict(done)))
