"""A relay's process from its settings to its end."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fedaq.energy.radios import PRESETS
from fedaq.errors import UserError, why
from fedaq.files import make_folder
from fedaq.net.addresses import joined
from fedaq.process import stopping
from fedaq.process.logs import event
from fedaq.process.terminal import console, foreign, si
from fedaq.settings import Settings, load_settings
from fedaq.tasks import load_task
from fedaq.tasks.partition import WHOLE
from fedaq_client.events import Event, Sent
from fedaq_client.means import means_of
from fedaq_client.naming import name_of
from fedaq_client.returning import CONNECT_S, take_part
from fedaq_client.training import Learner
from fedaq_client.transport.access import servers_of
from fedaq_client.transport.connection import in_turn
from fedaq_client.watchdog import notify, watched
from fedaq_relay.relay import Relay
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.transport.open_files import raise_limit

log = logging.getLogger(__name__)


def run_relay(
    *, config: Path | None, out: Path | None, flags: Mapping[str, Any], assignments: list[str]
) -> None:
    """Relay one run.

    Raises
    ------
    UserError
        If a setting is wrong, or the server refuses the relay.
    FedaqError
        If there was no server for too long.
    """
    raise_limit()
    settings = load_settings(config=config, flags=flags, assignments=assignments)
    if settings.energy.run_budget:
        raise UserError(
            "energy.budget: a relay has none, the budget of its server is that of both hops; what "
            "each of its clients may spend is energy.device_budget"
        )
    if settings.common_grid:
        raise UserError(
            f"{settings.grid_setting}: a relay sees the updates of its clients and takes them as "
            "they are; leave it out, or let the clients connect to its server"
        )
    # What its clients send is added to the model that it received, whatever they were sent of it.
    settings = settings.model_copy(update={"base": "exact"})
    own = settings.client
    servers = servers_of(settings.network, own)
    name = name_of(own, WHOLE, servers[0][1])
    task = load_task(settings.task, settings.data)
    folder = out or Path("runs") / f"relay-{name}"
    with _ledger_in(folder, settings) as ledger:
        learner = Learner(task, (), settings.seed, state=folder, start_from=settings.start_from)
        relay = Relay(
            settings, task, learner, ledger, _tell_round,
            on_listening=lambda port: console.print(
                f"listening on {foreign(joined(settings.network.host, port))}"
            ),
            on_page=lambda address: console.print(f"watch it: {foreign(address)}"),
        )  # fmt: skip
        console.print(f"relay {foreign(name)}, server {foreign(own.server)}, folder {folder}")
        log.info(
            "relay %s goes on after round %d" if ledger.rounds_done else "relay %s begins",
            *((name, ledger.rounds_done) if ledger.rounds_done else (name,)),
            extra=event("started", client=name, server=own.server, round=ledger.rounds_done),
        )  # fmt: skip
        connect = in_turn(servers, CONNECT_S)
        reason = stopping.run(
            watched(
                relay.take_part(
                    lambda: take_part(
                        lambda: relay.connected(connect),
                        name,
                        learner,
                        None if own.radio is None else PRESETS[own.radio].cost(),
                        _tell_event,
                        own.give_up_after_s,
                        ready=relay.ready,
                        means=means_of(own),
                        below=relay,
                    )
                )
            )
        )
    console.print(f"{foreign(name)}: {foreign(reason)}")
    log.info("%s: %s", name, reason, extra=event("run over", client=name, reason=reason))


@contextmanager
def _ledger_in(folder: Path, settings: Settings) -> Iterator[Ledger]:
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be made: {why(error)}") from None
    with closing(Ledger(folder)) as ledger:
        begun = ledger.settings()
        if ledger.is_over:
            raise UserError(f"--out {folder}: that run is over; choose another folder")
        if begun is not None and begun["scheme"] != settings.scheme:
            raise UserError(
                f"--scheme {settings.scheme}: the relay has begun with {begun['scheme']}"
            )
        yield ledger


def _tell_round(record: RoundRecord) -> None:
    console.print(
        f"round {record.round}: {record.clients} updates, {si(record.energy_j, 'J')} in its hop"
    )


def _tell_event(told: Event) -> None:
    if isinstance(told, Sent):
        notify(f"STATUS=round {told.round} of {told.rounds} is done")
        log.info("round %d: the update counted", told.round)
