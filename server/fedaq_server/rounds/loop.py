"""The round loop."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedaq.codec import chunks, payload
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Spread, derive_seed
from fedaq.energy.cost import downlink_j_per_bit
from fedaq.errors import ProtocolError, reason_name
from fedaq.process.logs import event
from fedaq.settings import Settings
from fedaq.tasks import Evaluation
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.conduct import Conduct
from fedaq_server.metrics import Metrics
from fedaq_server.records.capture import Capture
from fedaq_server.records.ledger import ClientMemory, Committed, Ledger, Transfer
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.aggregation import Aggregate
from fedaq_server.rounds.broadcast import (
    Broadcast,
    Frame,
    Source,
    begin_broadcast,
    broadcast_values,
)
from fedaq_server.rounds.differences import UP_TO_DATE, CatchUp, History
from fedaq_server.rounds.exchange import Differences, Report, RoundWork, exchange
from fedaq_server.rounds.measure import Downlink, catch_up_j, measure
from fedaq_server.rounds.robust import Robust
from fedaq_server.schemes.scheme import ClientState, Outcome, Plan, RoundState, Scheme, checked
from fedaq_server.transport.faults import OF_VALUES, blame, is_fault
from fedaq_server.transport.roster import Client, DisconnectedError, Roster
from fedaq_server.transport.tcp_counter import WireCounter

log = logging.getLogger(__name__)

NOTICE_S = 1.0
# For the chunks of all clients together. At any time two of each client's are held, and one more
# is on its way; of what goes down, gRPC has a copy of one. With ten clients and 10 M parameters
# they keep the server under 400 MB (docs/benchmarks-speed.md).
UPLINK_MEMORY_BYTES, DOWNLINK_MEMORY_BYTES = 5_760 * 1024, 11_520 * 1024
LEAST_CHUNK_BYTES = 64 * 1024
# Values that show a scheme how long codes will be, of all tensors and of each at least.
SAMPLE, LEAST_SAMPLE = 2**17, 2**8


@dataclass(frozen=True)
class Federation:
    """Everything the round loop works on.

    Attributes
    ----------
    module : nn.Module
        Shares its memory with `model`.
    model : float32, shape (parameters,)
        ``w_k``, the global model.
    total : int64, shape (parameters,)
        Memory for the sum of updates. Where they are added to the broadcast model, the exact one
        need not last once that is coded: then `model` is the first half of this memory.
    history : History, optional
        What clients hold, if they are sent differences.
    first_ranges : tuple of Spread
        Of the weights with which the run begins.
    evaluate : callable
        Tests the module; called between rounds, off the event loop.
    ledger : Ledger
        What the next round depends on, and the folder of the run.
    commit : callable
        Commits a round to the ledger, before the next begins; called off the event loop.
    on_round : callable
        Told of every committed round, and of the plan with which it began.
    """

    settings: Settings
    spec: ModelSpec
    module: nn.Module
    model: Floats
    total: NDArray[np.int64]
    history: History | None
    first_ranges: tuple[Spread, ...]
    scheme: Scheme
    roster: Roster
    conduct: Conduct
    evaluate: Callable[[], Evaluation]
    ledger: Ledger
    commit: Callable[[Committed], None]
    on_round: Callable[[Committed, Plan], None]
    metrics: Metrics


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
            if last is not None and _reached(settings, last):
                break
            resumed = number == first and last is not None
            clients = await _participants(federation, number, resumed=resumed)
            started = time.monotonic()
            log.info(
                "round %d of %d: %d clients", number, settings.rounds, len(clients),
                extra=event("round began", round=number, clients=len(clients)),
            )  # fmt: skip
            catch_ups = _catch_ups(federation, clients, resumed=resumed)
            spreads = await asyncio.to_thread(_downlink_ranges, federation)
            weights = _weights(federation, clients)
            state = _state(federation, number, clients, weights, spreads, catch_ups)
            plan = federation.scheme.plan(state)
            if plan is None:
                break
            work = await _begin(federation, state, plan, weights, catch_ups, worker)
            try:
                with federation.metrics.phase("exchange"):
                    reports = await _exchange_all(clients, work, federation)
                reports = _enough(reports, work, settings)
            finally:
                # Whoever reported, and also when the run is stopped: it does not outlive the round.
                if work.differences is not None:
                    await work.differences.advanced
            frames = await work.broadcast.coded()
            if not reports:
                await work.fold(work.aggregate.clear)
            with federation.metrics.phase("aggregation"):
                await asyncio.to_thread(_advance, federation, work, frames)
                work.aggregate.close()
            with federation.metrics.phase("evaluation"):
                evaluation, _ = await asyncio.gather(
                    asyncio.to_thread(federation.evaluate),
                    asyncio.to_thread(_write_model, federation, number),
                )
            downlink = await _downlink(work)
            last = measure(
                state, downlink, reports, evaluation, wire.sample(),
                charged=work.charged, price=work.plan.price, seconds=time.monotonic() - started,
            )  # fmt: skip
            federation.scheme.learn(_outcome(last, reports))
            committed = _committed(federation, last, tuple(_transfers(work, downlink, reports)))
            await asyncio.to_thread(federation.commit, committed)
            federation.on_round(committed, plan)


def _reached(settings: Settings, record: RoundRecord) -> bool:
    return bool(settings.target_accuracy and record.test_accuracy >= settings.target_accuracy)


async def _participants(federation: Federation, number: int, *, resumed: bool) -> list[Client]:
    """Wait for the clients that a round needs and return those that take part in it."""
    settings, roster = federation.settings, federation.roster
    if resumed:
        known = federation.ledger.clients().items()
        names = {name for name, memory in known if memory.present}
        await roster.wait_for_all(names, settings.network.return_wait_s)
    await roster.wait_for_lost(settings.network.return_wait_s)
    wanted = settings.clients if number == 1 else settings.quorum
    ready = await roster.wait_for(wanted, settings.network.join_timeout_s)
    return _drawn(ready, settings, number)


def _drawn(ready: list[Client], settings: Settings, number: int) -> list[Client]:
    """Draw the clients of a round: whoever else is there, a client's lot is the same."""
    lots = {
        client.name: derive_seed(settings.seed, "sample", client.name, number) for client in ready
    }
    drawn = sorted(ready, key=lambda client: lots[client.name])[: settings.sample]
    return sorted(drawn, key=lambda client: client.name)


def _catch_ups(
    federation: Federation, clients: list[Client], *, resumed: bool
) -> dict[str, CatchUp]:
    history = federation.history
    if history is None:
        return {}
    ways = {client.name: history.catch_up(client.holds, history.sent.count) for client in clients}
    if resumed:
        for client in clients:
            if ways[client.name].whole and client.holds:
                ways[client.name] = CatchUp(ahead=True)
    return ways


def _going_down(federation: Federation) -> Callable[[slice], Floats]:
    """Return what gives the values, at a slice, of what is to go down."""
    model, history = federation.model, federation.history
    return model.__getitem__ if history is None else lambda part: history.gain(model, part)


def _downlink_ranges(federation: Federation) -> tuple[Spread, ...]:
    return payload.tensor_spreads(federation.spec, _going_down(federation))


def _downlink_samples(federation: Federation) -> tuple[Floats, ...]:
    values_at, parts = _going_down(federation), federation.spec.slices
    sample = max(SAMPLE // len(parts), LEAST_SAMPLE)
    return tuple(
        # An odd stride, so as not to hit the same few columns of a matrix again and again.
        values_at(slice(part.start, part.stop, (part.stop - part.start) // sample | 1))
        for part in parts
    )


def _weights(federation: Federation, clients: list[Client]) -> dict[str, int]:
    if federation.settings.aggregation != "mean":
        return {client.name: 1 for client in clients}
    return federation.conduct.weights({client.name: client.examples for client in clients})


def _state(
    federation: Federation,
    number: int,
    clients: list[Client],
    weights: Mapping[str, int],
    spreads: tuple[Spread, ...],
    catch_ups: Mapping[str, CatchUp],
) -> RoundState:
    settings = federation.settings
    total = sum(weights.values())
    states = {
        client.name: ClientState(
            client.name,
            weights[client.name] / total,
            client.radio or settings.energy.radio_cost(settings.seed, client.name, number),
            federation.roster.ranges.get(client.name),
        )
        for client in clients
    }
    return RoundState(
        round=number,
        rounds=settings.rounds,
        spec=federation.spec,
        downlink_ranges=spreads,
        differences=federation.history is not None,
        first_ranges=federation.first_ranges,
        downlink_samples=_downlink_samples(federation),
        clients=states,
        downlink_j_per_bit=downlink_j_per_bit(
            [
                client.radio
                for client in states.values()
                if not catch_ups.get(client.name, UP_TO_DATE).whole
            ],
            broadcast=settings.energy.broadcast,
        ),
        catch_up_j=catch_up_j(
            states, {name: catch_up.payload_bytes for name, catch_up in catch_ups.items()}
        ),
    )


async def _begin(
    federation: Federation,
    state: RoundState,
    plan: Plan,
    weights: Mapping[str, int],
    catch_ups: dict[str, CatchUp],
    worker: ThreadPoolExecutor,
) -> RoundWork:
    settings, history, ledger = federation.settings, federation.history, federation.ledger
    started = time.monotonic()
    spreads = state.downlink_ranges
    grant = checked(plan.downlink, spreads, federation.spec)
    ranges = payload.clipped_ranges(spreads, grant.bits) if plan.clip else spreads
    uplink_chunk_bytes, downlink_chunk_bytes = (
        _chunk_bytes(settings.network.chunk_bytes, memory_bytes, len(weights))
        for memory_bytes in (UPLINK_MEMORY_BYTES, DOWNLINK_MEMORY_BYTES)
    )
    source = Source(
        _going_down(federation),
        settings.seed,
        state.round,
        b"" if history is None else history.digest,
        settings.entropy,
        downlink_chunk_bytes,
    )
    broadcast = await begin_broadcast(
        payload.plan_payload(federation.spec, grant.bits, ranges, grant.steps),
        source,
        grant.limit_bytes,
        worker,
    )
    differences = None
    if history is not None:
        before = history.sent.count
        advanced = asyncio.ensure_future(_advance_history(history, broadcast, worker))
        differences = Differences(history, catch_ups, before, advanced)
    capture = Capture(ledger.folder / "payloads") if settings.capture else None
    aggregate = _aggregate(federation, weights)
    # Behind all coding of the broadcast, which reads the model, and before any update.
    cleared = worker.submit(aggregate.clear)
    cleared.add_done_callback(
        lambda _: federation.metrics.took("broadcast", time.monotonic() - started)
    )
    return RoundWork(
        state=state,
        plan=plan,
        scheme=federation.scheme,
        broadcast=broadcast,
        aggregate=aggregate,
        deadline_s=settings.network.round_deadline_s,
        worker=worker,
        capture=capture,
        chunk_bytes=uplink_chunk_bytes,
        squeeze=settings.entropy,
        differences=differences,
        weights=weights,
        norm_limit=federation.conduct.norm_limit(),
    )


def _chunk_bytes(largest: int, memory_bytes: int, clients: int) -> int:
    return min(largest, max(memory_bytes // clients, LEAST_CHUNK_BYTES))


def _aggregate(federation: Federation, weights: Mapping[str, int]) -> Aggregate | Robust:
    settings, folder = federation.settings, federation.ledger.folder
    if settings.aggregation == "mean":
        return Aggregate(federation.spec, sum(weights.values()), folder, federation.total)
    return Robust(federation.spec, folder, settings.aggregation, settings.trim)


async def _advance_history(
    history: History, broadcast: Broadcast, worker: ThreadPoolExecutor
) -> bytes:
    messages = [broadcast.header, *(frame.message for frame in await broadcast.coded())]
    payload_bytes = await broadcast.payload_bytes()
    await asyncio.get_running_loop().run_in_executor(
        worker, history.advance, messages, payload_bytes
    )
    return history.digest


async def _downlink(work: RoundWork) -> Downlink:
    """Return what went down: the broadcast, and what clients needed besides or instead."""
    catch_ups = {} if work.differences is None else work.differences.catch_ups
    return Downlink(
        work.broadcast.payload,
        await work.broadcast.payload_bytes(),
        {name: catch_up.payload_bytes for name, catch_up in catch_ups.items()},
        frozenset(name for name, catch_up in catch_ups.items() if catch_up.whole),
    )


async def _exchange_all(
    clients: list[Client], work: RoundWork, federation: Federation
) -> list[Report]:
    """Return the reports of the clients that finished in time, in the order of their names."""
    at_work = {client.name: client for client in clients}
    tasks = {
        asyncio.create_task(_exchange(name, at_work, work, federation)): name for name in at_work
    }
    try:
        await asyncio.wait(tasks, timeout=work.deadline_s)
    finally:
        # Also when the run is stopped: no exchange outlives its round.
        late = [task for task in tasks if task.cancel()]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    reports, refused = [], []
    for name, result in zip(at_work, results, strict=True):
        if isinstance(result, Report):
            reports.append(result)
        elif isinstance(result, ProtocolError | DisconnectedError):
            _left_out(federation, work, name, result)
            if isinstance(result, ProtocolError):
                refused.append((at_work[name], result))
        elif not isinstance(result, asyncio.CancelledError):
            raise result
    await _judge(federation, work, len(reports), refused)
    await asyncio.gather(*(_set_aside(at_work[tasks[task]], work, federation) for task in late))
    return reports


async def _judge(
    federation: Federation,
    work: RoundWork,
    counted: int,
    refused: list[tuple[Client, ProtocolError]],
) -> None:
    """Count what was refused against those whose fault it was."""
    conduct = federation.conduct
    conduct.learn_norms(work.norms.values())
    # Where most are refused for their values, it is the model that has gone astray, or the limit.
    forgiven = sum(error.reason in OF_VALUES for _, error in refused) > counted
    for client, error in refused:
        if is_fault(error) and not (forgiven and error.reason in OF_VALUES):
            await blame(conduct, federation.roster, client, str(error))


def _left_out(
    federation: Federation,
    work: RoundWork,
    name: str,
    error: ProtocolError | DisconnectedError,
) -> None:
    reason = reason_name(error.reason) if isinstance(error, ProtocolError) else "disconnected"
    federation.metrics.left_out.labels(reason).inc()
    log.warning(
        "round %d: %s left out: %s", work.state.round, name, error,
        extra=event("client left out", round=work.state.round, client=name, reason=reason,
                    detail=str(error)),
    )  # fmt: skip


def _enough(reports: list[Report], work: RoundWork, settings: Settings) -> list[Report]:
    """Return the reports if they are as many as a round needs, else none."""
    if len(reports) >= settings.quorum:
        return reports
    log.warning(
        "round %d: %d updates arrived and %d are needed; the model stays as it is",
        work.state.round, len(reports), settings.quorum,
        extra=event("quorum missed", round=work.state.round, updates=len(reports),
                    quorum=settings.quorum),
    )  # fmt: skip
    return []


async def _exchange(
    name: str, at_work: dict[str, Client], work: RoundWork, federation: Federation
) -> Report:
    """Carry a client through the round, from its beginning again if it lost its connection."""
    roster, wait_s = federation.roster, federation.settings.network.return_wait_s
    while True:
        client = at_work[name]
        try:
            report = await exchange(client, work)
        except DisconnectedError:
            back = None if client.left else await roster.wait_for_return(client, wait_s)
            if back is None or back.examples != client.examples:
                raise
            at_work[name] = back
            if work.differences is not None:
                history, before = work.differences.history, work.differences.before
                await asyncio.shield(work.differences.advanced)
                work.differences.catch_ups[name] = history.catch_up(back.holds, before)
        else:
            roster.ranges[name] = report.ranges
            return report


async def _set_aside(client: Client, work: RoundWork, federation: Federation) -> None:
    _left_out(federation, work, client.name, _too_late(work))
    federation.roster.set_aside(client)
    # It may have stopped reading, and then nothing can be written to it either.
    with suppress(DisconnectedError, TimeoutError):
        async with asyncio.timeout(NOTICE_S):
            await client.refuse(work.state.round, _too_late(work))


def _too_late(work: RoundWork) -> ProtocolError:
    return ProtocolError(
        pb.REFUSAL_REASON_DEADLINE,
        f"the update was not there {work.deadline_s:g} s after the round began",
    )


def _advance(federation: Federation, work: RoundWork, frames: list[Frame]) -> None:
    """Turn the global model into that of the next round."""
    header, model, history = work.broadcast.payload, federation.model, federation.history
    if work.capture is not None:
        work.capture.keep(header, work.state.round, "server", _codes(header, frames))
    if federation.settings.added_to == "exact":
        work.aggregate.apply(model, model)
    elif history is not None:
        work.aggregate.apply(history.held, model)
    else:
        for part, values in broadcast_values(header, frames):
            work.aggregate.apply(values, model, part)


def _codes(header: Payload, frames: list[Frame]) -> bytes:
    return b"".join(chunks.codes_of(header, frame.chunk) for frame in frames)


def _write_model(federation: Federation, number: int) -> None:
    federation.ledger.write_model(number, federation.spec, federation.model)
    if federation.history is not None:
        federation.history.settle()


def _transfers(work: RoundWork, downlink: Downlink, reports: list[Report]) -> Iterator[Transfer]:
    """Yield what every client of the round was sent, and sent."""
    counted = {report.client.name for report in reports}
    for name in work.state.clients:
        down = downlink.catch_up_bytes.get(name, 0)
        if name not in downlink.without:
            down += downlink.payload_bytes
        yield Transfer(name, "downlink", down, counted=True)
        if name in work.charged:
            yield Transfer(name, "uplink", work.charged[name], counted=name in counted)


def _committed(
    federation: Federation, record: RoundRecord, transfers: tuple[Transfer, ...]
) -> Committed:
    roster, history = federation.roster, federation.history
    present = {client.name for client in roster.everyone()}
    clients = {
        name: ClientMemory(name in present, roster.ranges.get(name))
        for name in sorted(present | roster.ranges.keys())
    }
    sent = None if history is None else history.sent
    return Committed(record, transfers, clients, federation.scheme, sent, federation.conduct)


def _outcome(record: RoundRecord, reports: list[Report]) -> Outcome:
    return Outcome(
        round=record.round,
        test_accuracy=record.test_accuracy,
        test_loss=record.test_loss,
        train_loss=record.train_loss,
        update_ranges={report.client.name: report.ranges for report in reports},
        energy_j=record.energy_j,
        uplink_bytes={report.client.name: report.payload_bytes for report in reports},
    )
