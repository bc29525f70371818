"""The round loop: which clients take part, and one round after another until the run is over."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from fedaq.codec.quantizer import derive_seed
from fedaq.process.logs import event
from fedaq.settings import Settings
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.collect import collect
from fedaq_server.rounds.commit import aggregate, commit
from fedaq_server.rounds.federation import Federation
from fedaq_server.rounds.round import begin
from fedaq_server.transport.client import Client
from fedaq_server.transport.roster import return_window_s
from fedaq_server.transport.tcp_counter import WireCounter

log = logging.getLogger(__name__)


async def run_rounds(federation: Federation, wire: WireCounter, last: RoundRecord | None) -> None:
    """Run every round of the federation, or those that are left.

    Parameters
    ----------
    federation : Federation
    wire : WireCounter
        Bytes that crossed the sockets.
    last : RoundRecord, optional
        The last round that was committed before the server was stopped.

    Raises
    ------
    FedaqError
        If too few clients connect in time.
    """
    settings = federation.settings
    first = 1 if last is None else last.round + 1
    with ThreadPoolExecutor(1, "fold") as worker:
        for number in range(first, settings.rounds + 1):
            if last is not None and _reached(federation, last):
                break
            resumed = number == first and last is not None
            if _are_spent(federation) or _has_told_all(federation, number):
                break
            clients = await _participants(federation, number, resumed=resumed)
            last = await run_round(federation, number, clients, worker, wire, resumed=resumed)
            if last is None or await asyncio.to_thread(federation.is_last, last):
                break


async def run_round(
    federation: Federation,
    number: int,
    clients: list[Client],
    worker: ThreadPoolExecutor,
    wire: WireCounter,
    *,
    resumed: bool,
) -> RoundRecord | None:
    """Carry out and commit one round with these clients; None if the scheme ends the run instead.

    Parameters
    ----------
    federation : Federation
    number : int
        From 1; more than those that are committed.
    clients : list of Client
        In the order of their names.
    worker : ThreadPoolExecutor
        One thread.
    wire : WireCounter
    resumed : bool
        Whether it is the first since the server was stopped.
    """
    log.info(
        "round %d of %d: %d clients", number, federation.settings.rounds, len(clients),
        extra=event("round began", round=number, clients=len(clients)),
    )  # fmt: skip
    current = await begin(federation, number, clients, worker, resumed=resumed)
    if current is None:
        return None
    if federation.settings.privacy.secure_aggregation:
        # What it needs is a package that other runs do without.
        from fedaq_server.rounds.masking import masking_of

        current = replace(current, masking=masking_of(current, federation.authority()))
    try:
        with federation.metrics.phase("exchange"):
            reports = await collect(current)
    finally:
        # Whoever reported, and also when the run is stopped: it does not outlive the round.
        if current.differences is not None:
            await current.differences.advanced
    tested, mean_power = await aggregate(current, reports)
    return await commit(current, reports, tested, mean_power, wire)


def _reached(federation: Federation, record: RoundRecord) -> bool:
    metric, target = federation.metric, federation.settings.metric_target
    return target is not None and metric.reaches(record.value(metric.name), target)


def _are_spent(federation: Federation) -> bool:
    """Tell whether so many devices are empty that no round has the updates that it needs."""
    settings, empty = federation.settings, federation.accounts.empty
    return bool(empty) and settings.clients - len(empty) < settings.quorum


def _has_told_all(federation: Federation, number: int) -> bool:
    """Tell whether a sum more would tell more of a client than it may, and say so."""
    account = federation.privacy
    if account is None or account.pays():
        return False
    log.warning(
        "privacy.epsilon = %g ends the run after %d of %d rounds: %.4g is spent, and one more does "
        "not fit; a round that was stopped after its sum counts, too",
        account.epsilon, number - 1, account.rounds, account.spent,
        extra=event("epsilon spent", epsilon=account.spent),
    )  # fmt: skip
    return True


async def _participants(federation: Federation, number: int, *, resumed: bool) -> list[Client]:
    """Wait for the clients that a round needs and return those that take part in it."""
    settings, roster = federation.settings, federation.roster
    if resumed:
        names = federation.ledger.present()
        wait_s = settings.network.return_wait_s + return_window_s(len(names))
        await roster.wait_for_all(names, wait_s)
    await roster.wait_for_lost(settings.network.return_wait_s)
    # Who is there and declines was waited for, but a round needs those who are ready.
    present = settings.clients if number == 1 else 0
    ready = await roster.wait_for(settings.quorum, settings.network.join_timeout_s, present)
    return drawn(ready, settings, number)


def drawn(ready: list[Client], settings: Settings, number: int) -> list[Client]:
    """Draw the clients of a round: whoever else is there, a client's lot is the same."""
    lots = {
        client.name: derive_seed(settings.seed, "sample", client.name, number) for client in ready
    }
    drawn = sorted(ready, key=lambda client: lots[client.name])[: settings.sample]
    return sorted(drawn, key=lambda client: client.name)
