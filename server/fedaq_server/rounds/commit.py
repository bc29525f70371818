"""The end of a round: the next model, what the round came to, and its entry in the ledger."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from math import isfinite, nan

import numpy as np

from fedaq.codec import statistics
from fedaq.codec.common_grid import figures_of, mean_figures
from fedaq.codec.quantizer import Floats
from fedaq.tasks import Evaluation
from fedaq_server.accounts import Accounts
from fedaq_server.records.ledger import MOMENTS, Committed
from fedaq_server.records.record import Relayed, RoundRecord
from fedaq_server.records.rows import Transfer
from fedaq_server.rounds import turns
from fedaq_server.rounds.aggregation import Aggregate
from fedaq_server.rounds.broadcast import Frame, broadcast_values
from fedaq_server.rounds.federation import Federation
from fedaq_server.rounds.gathered import Gathered
from fedaq_server.rounds.measure import Downlink, Tested, measure
from fedaq_server.rounds.private import adapt, make_private
from fedaq_server.rounds.reports import Report
from fedaq_server.rounds.round import Round, without_unpaid
from fedaq_server.rounds.server_optimizer import ServerOptimizer
from fedaq_server.schemes.scheme import Outcome
from fedaq_server.transport.tcp_counter import WireCounter

# Of the tensors that are not finite, so many are named.
NAMED = 8


async def aggregate(current: Round, reports: list[Report]) -> tuple[Tested, float | None]:
    """Make the model of the next round, write it to the disk, and test it.

    Returns
    -------
    Tested
    float or None
        The `Outcome.mean_power`.
    """
    federation = current.federation
    frames = await current.broadcast.coded()
    if current.differences is not None:
        await current.differences.advanced
    if reports:
        await make_private(current)
    else:
        await current.on_worker(current.aggregate.clear)
    with federation.metrics.phase("aggregation"):
        power = await asyncio.to_thread(_advance, current, frames, reports)
        current.aggregate.close()
    with federation.metrics.phase("evaluation"):
        tested, _ = await asyncio.gather(
            asyncio.to_thread(_tested, federation, current.number),
            asyncio.to_thread(_write_model, federation, current.number),
        )
    return tested, power


async def commit(
    current: Round,
    reports: list[Report],
    tested: Tested,
    mean_power: float | None,
    wire: WireCounter,
) -> RoundRecord:
    """Measure the round, let the scheme learn from it, and commit it to the ledger."""
    federation = current.federation
    downlink, state = await _downlink(current), without_unpaid(current)
    crossed = await asyncio.to_thread(wire.sample)  # it looks at every connection
    record = measure(
        state, downlink, reports, tested, crossed,
        relays=_hops(federation.accounts, reports), charged=current.charged,
        declined=current.declined, price=current.plan.price,
        seconds=time.monotonic() - current.started_s, epsilon=_told(current, reports),
    )  # fmt: skip
    outcome = _outcome(record, reports, downlink, _widths(current, reports), mean_power)
    await asyncio.to_thread(federation.scheme.learn, outcome)
    transfers = tuple(_transfers(current, downlink, reports))
    federation.accounts.charge(
        {name: client.radio for name, client in state.clients.items()},
        {each.client: each.payload_bytes for each in transfers if each.direction == "downlink"},
        current.charged,
        record.energy_j,
    )
    committed = _committed(current, record, transfers)
    await asyncio.to_thread(federation.commit, committed)
    federation.on_round(committed, current.plan)
    return record


def _told(current: Round, reports: list[Report]) -> float:
    """Return the epsilon that the run has spent; the clip of the next round follows from this."""
    account = current.federation.privacy
    if account is None:
        return 0.0
    if reports:
        adapt(account, current, reports)
    return account.spent


def _hops(accounts: Accounts, reports: list[Report]) -> dict[str, Relayed]:
    """Return what relays brought to a round, with the joules since they were last heard of."""
    return {
        report.client.name: replace(
            report.relayed,
            energy_j=accounts.relay_took(report.client.name, report.relayed.energy_j),
        )
        for report in reports
        if report.relayed is not None
    }


def _advance(current: Round, frames: list[Frame], reports: list[Report]) -> float | None:
    """Turn the global model into that of the next round; without updates, it does not move.

    Returns
    -------
    float or None
        The `Outcome.mean_power`.
    """
    federation, header = current.federation, current.broadcast.payload
    model, history = federation.model, federation.history
    if current.capture is not None:
        sent = [current.broadcast.header, *(frame.message for frame in frames)]
        pasts = [frame.past for frame in frames]
        current.capture.keep_sent(federation.spec, sent, "server", pasts)
    own = federation.spec.statistics
    # Clients' changes are from these, and in units of these. What clients lack of the server's
    # is not added: statistics follow from weights and data, and nothing of them adds up.
    held = current.statistics if history is None else history.held[own]
    # Before the sum is overwritten.
    changes = _statistics(current, reports)
    power = None
    if reports and isinstance(current.aggregate, Aggregate):
        power = current.aggregate.power(slice(0, own.start))
    unit = statistics.units(federation.spec, held, statistics.UPLINK)
    advanced = statistics.changed(federation.spec, held, changes, unit)
    optimizer = federation.optimizer if reports else None
    if federation.settings.added_to == "exact":
        _add(current.aggregate, optimizer, model, model)
    elif history is not None:
        _add(current.aggregate, optimizer, history.held, model)
    else:
        for part, values in broadcast_values(header, frames):
            _add(current.aggregate, optimizer, values, model, part)
    model[own] = advanced
    return power


def _statistics(current: Round, reports: list[Report]) -> Floats:
    """Return the mean change of the statistics of those who reported them, in units."""
    federation, spec = current.federation, current.federation.spec
    changes = current.aggregate.mean(spec.statistics)
    if not spec.has_statistics or current.masking is not None:
        return changes
    # Whoever says that nothing has changed sends nothing.
    heard = [each for each in reports if each.update.codes[-1].bits or each.ranges[-1].is_zero]
    if 0 < len(heard) < len(reports):
        # All who did not report were taken to have changed nothing.
        every = sum(report.weight for report in reports)
        changes *= np.float32(every / sum(report.weight for report in heard))
    apart = turns.square_apart(
        [report.ranges[-1] for report in heard],
        [report.weight for report in heard],
        [report.update.codes[-1].step for report in heard],
        changes,
    )
    if apart is not None:
        federation.conduct.learn_apart(apart)
    return changes


def _add(
    aggregate: Aggregate | Gathered,
    optimizer: ServerOptimizer | None,
    base: Floats,
    out: Floats,
    part: slice | None = None,
) -> None:
    """Write what follows on `base`, which lies at `part` of the flat model, into `out`."""
    part = part or slice(0, len(out))
    if optimizer is None:
        aggregate.apply(base, out, part)
        return
    for block, is_trained in optimizer.blocks(part):
        update = aggregate.mean(block)
        step = optimizer.step(update, block) if is_trained else update
        np.add(base[block.start - part.start : block.stop - part.start], step, out=out[block])


def _tested(federation: Federation, number: int) -> Tested:
    evaluation, metric = federation.evaluate(number), federation.metric
    if evaluation is None:
        return Tested(Evaluation(loss=nan), (), is_tested=False)
    said = evaluation.loss, evaluation.metrics.get(metric.name, evaluation.loss)
    if all(map(isfinite, said)):
        return Tested(evaluation, ())
    named, model = federation.spec.named, federation.model
    bad = (tensor.name for tensor, part in named if not np.isfinite(model[part]).all())
    return Tested(evaluation, tuple(islice(bad, NAMED)))


def _write_model(federation: Federation, number: int) -> None:
    ledger, optimizer = federation.ledger, federation.optimizer
    ledger.write_model(number, federation.spec, federation.model)
    if optimizer is not None:
        ledger.write_model(number, optimizer.spec, optimizer.flat, MOMENTS)
    if federation.history is not None:
        federation.history.settle()


async def _downlink(current: Round) -> Downlink:
    """Return what went down: the broadcast, and what clients needed besides or instead."""
    catch_ups = {} if current.differences is None else current.differences.catch_ups
    catch_ups = {name: way for name, way in catch_ups.items() if name not in current.unpaid}
    return Downlink(
        current.broadcast.payload,
        await current.broadcast.payload_bytes(),
        {name: catch_up.payload_bytes for name, catch_up in catch_ups.items()},
        frozenset(name for name, catch_up in catch_ups.items() if catch_up.whole),
        {} if current.masking is None else current.masking.down,
    )


def _transfers(current: Round, downlink: Downlink, reports: list[Report]) -> Iterator[Transfer]:
    """Yield what every client of the round was sent, and sent."""
    counted = {report.client.name for report in reports}
    for name in current.state.clients:
        if name in current.unpaid:
            continue
        down = downlink.catch_up_bytes.get(name, 0) + downlink.alone_bytes.get(name, 0)
        if name not in downlink.without:
            down += downlink.payload_bytes
        yield Transfer(name, "downlink", down, counted=True)
        if name in current.charged:
            yield Transfer(name, "uplink", current.charged[name], counted=name in counted)


def _committed(current: Round, record: RoundRecord, transfers: tuple[Transfer, ...]) -> Committed:
    federation, history = current.federation, current.federation.history
    there = {client.name for client in federation.roster.everyone()}
    sent = None if history is None else history.sent
    return Committed(
        record,
        transfers,
        there - federation.accounts.empty.keys(),
        current.ranges,
        federation.scheme,
        sent,
        federation.conduct,
        federation.accounts,
        federation.privacy,
    )


def _widths(current: Round, reports: list[Report]) -> tuple[float, ...]:
    """Return how wide the updates were, as much as can be known of masked ones."""
    if not (current.plan.grid and reports) or current.state.release is not None:
        return ()
    if current.masking is not None:
        assert current.masking.figures is not None
        return current.masking.figures.widths
    sums = np.zeros(1 + len(current.state.spec.tensors), np.int64)
    for report in reports:
        sums += report.weight * np.array(figures_of(report.ranges, report.train_loss))
    return mean_figures(sums.tolist(), sum(report.weight for report in reports)).widths


def _outcome(
    record: RoundRecord,
    reports: list[Report],
    downlink: Downlink,
    widths: tuple[float, ...],
    mean_power: float | None,
) -> Outcome:
    return Outcome(
        round=record.round,
        test_accuracy=record.test_accuracy,
        test_loss=record.test_loss,
        test_metrics=record.test_metrics,
        train_loss=record.train_loss,
        update_ranges={report.client.name: report.ranges for report in reports},
        energy_j=record.energy_j,
        uplink_bytes={report.client.name: report.payload_bytes for report in reports},
        downlink_bytes=downlink.payload_bytes,
        widths=widths,
        mean_power=mean_power,
    )
