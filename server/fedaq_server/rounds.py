"""The round loop."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedaq import chunks, payload
from fedaq.energy import downlink_j_per_bit
from fedaq.errors import ProtocolError, reason_name
from fedaq.logs import event
from fedaq.model import ModelSpec
from fedaq.payload import Payload
from fedaq.quantizer import Floats, Spread
from fedaq.settings import Settings
from fedaq.tasks import Evaluation
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.aggregation import Aggregate
from fedaq_server.broadcast import Broadcast, Frame, Source, begin_broadcast, broadcast_values
from fedaq_server.capture import Capture
from fedaq_server.clients import Client, DisconnectedError, Roster
from fedaq_server.exchange import Differences, Report, RoundWork, exchange
from fedaq_server.history import UP_TO_DATE, CatchUp, History
from fedaq_server.metrics import Metrics
from fedaq_server.record import Downlink, RoundRecord, measure
from fedaq_server.schemes import ClientState, Outcome, Plan, RoundState, Scheme, checked
from fedaq_server.wire import WireCounter

log = logging.getLogger(__name__)

NOTICE_S = 1.0
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
    on_round : callable
        Told of every finished round.
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
    evaluate: Callable[[], Evaluation]
    folder: Path
    on_round: Callable[[RoundRecord], None]
    metrics: Metrics


async def run_rounds(federation: Federation, wire: WireCounter) -> None:
    """Run every round of the federation.

    Parameters
    ----------
    federation : Federation
    wire : WireCounter
        Bytes that crossed the sockets.

    Raises
    ------
    FedaqError
        If too few clients connect in time.
    """
    settings = federation.settings
    with ThreadPoolExecutor(1, "fold") as folder:
        for number in range(1, settings.rounds + 1):
            wanted = settings.clients if number == 1 else 1
            clients = await federation.roster.wait_for(wanted, settings.network.join_timeout_s)
            started = time.monotonic()
            log.info(
                "round %d of %d: %d clients", number, settings.rounds, len(clients),
                extra=event("round began", round=number, clients=len(clients)),
            )  # fmt: skip
            catch_ups = _catch_ups(federation, clients)
            spreads = await asyncio.to_thread(_downlink_ranges, federation)
            state = _state(federation, number, clients, spreads, catch_ups)
            plan = federation.scheme.plan(state)
            if plan is None:
                break
            work = await _begin(federation, state, plan, clients, catch_ups, folder)
            try:
                with federation.metrics.phase("exchange"):
                    reports = await _exchange_all(clients, work, federation)
            finally:
                # Whoever reported, and also when the run is stopped: it does not outlive the round.
                if work.differences is not None:
                    await work.differences.advanced
            frames = await work.broadcast.coded()
            with federation.metrics.phase("aggregation"):
                await asyncio.to_thread(_advance, federation, work, frames)
            with federation.metrics.phase("evaluation"):
                evaluation = await asyncio.to_thread(federation.evaluate)
            downlink = await _downlink(work)
            record = measure(
                state, downlink, reports, evaluation, wire.sample(),
                charged=work.charged, price=work.plan.price, seconds=time.monotonic() - started,
            )  # fmt: skip
            federation.scheme.learn(_outcome(record, reports))
            federation.on_round(record)
            if settings.target_accuracy and record.test_accuracy >= settings.target_accuracy:
                break


def _catch_ups(federation: Federation, clients: list[Client]) -> dict[str, CatchUp]:
    if federation.history is None:
        return {}
    return {client.name: federation.history.catch_up(client.holds) for client in clients}


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


def _state(
    federation: Federation,
    number: int,
    clients: list[Client],
    spreads: tuple[Spread, ...],
    catch_ups: Mapping[str, CatchUp],
) -> RoundState:
    settings = federation.settings
    examples = sum(client.examples for client in clients)
    states = {
        client.name: ClientState(
            client.name,
            client.examples / examples,
            client.radio or settings.energy.radio_cost(settings.seed, client.name, number),
            client.ranges,
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
        catch_up_j=sum(
            8 * catch_up.payload_bytes * downlink_j_per_bit([states[name].radio], broadcast=False)
            for name, catch_up in catch_ups.items()
        ),
    )


async def _begin(
    federation: Federation,
    state: RoundState,
    plan: Plan,
    clients: list[Client],
    catch_ups: Mapping[str, CatchUp],
    folder: ThreadPoolExecutor,
) -> RoundWork:
    settings, history = federation.settings, federation.history
    started = time.monotonic()
    spreads = state.downlink_ranges
    grant = checked(plan.downlink, spreads, federation.spec)
    ranges = payload.clipped_ranges(spreads, grant.bits) if plan.clip else spreads
    source = Source(
        _going_down(federation),
        settings.seed,
        state.round,
        b"" if history is None else history.digest,
        settings.entropy,
        settings.network.chunk_bytes,
    )
    broadcast = await begin_broadcast(
        payload.plan_payload(federation.spec, grant.bits, ranges, grant.steps),
        source,
        grant.limit_bytes,
        folder,
    )
    differences = None
    if history is not None:
        advanced = asyncio.ensure_future(_advance_history(history, broadcast, folder))
        differences = Differences(history, catch_ups, advanced)
    capture = Capture(federation.folder / "payloads") if settings.capture else None
    examples = sum(client.examples for client in clients)
    aggregate = Aggregate(federation.spec, examples, federation.folder, federation.total)
    # Behind all coding of the broadcast, which reads the model, and before any update.
    cleared = folder.submit(aggregate.clear)
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
        folder=folder,
        capture=capture,
        chunk_bytes=settings.network.chunk_bytes,
        squeeze=settings.entropy,
        differences=differences,
    )


async def _advance_history(
    history: History, broadcast: Broadcast, folder: ThreadPoolExecutor
) -> bytes:
    messages = [broadcast.header, *(frame.message for frame in await broadcast.coded())]
    payload_bytes = await broadcast.payload_bytes()
    await asyncio.get_running_loop().run_in_executor(
        folder, history.advance, broadcast.payload, messages, payload_bytes
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
    tasks = {asyncio.create_task(exchange(client, work)): client for client in clients}
    try:
        await asyncio.wait(tasks, timeout=work.deadline_s)
    finally:
        # Also when the run is stopped: no exchange outlives its round.
        late = [task for task in tasks if task.cancel()]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    reports = []
    for client, result in zip(clients, results, strict=True):
        if isinstance(result, Report):
            reports.append(result)
        elif isinstance(result, ProtocolError | DisconnectedError):
            _left_out(federation, work, client, result)
        elif not isinstance(result, asyncio.CancelledError):
            raise result
    await asyncio.gather(*(_set_aside(tasks[task], work, federation) for task in late))
    return reports


def _left_out(
    federation: Federation,
    work: RoundWork,
    client: Client,
    error: ProtocolError | DisconnectedError,
) -> None:
    reason = reason_name(error.reason) if isinstance(error, ProtocolError) else "disconnected"
    federation.metrics.left_out.labels(reason).inc()
    log.warning(
        "round %d: %s left out: %s", work.state.round, client.name, error,
        extra=event("client left out", round=work.state.round, client=client.name,
                    reason=reason, detail=str(error)),
    )  # fmt: skip


async def _set_aside(client: Client, work: RoundWork, federation: Federation) -> None:
    _left_out(federation, work, client, _too_late(work))
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
    messages = (pb.ServerMessage.FromString(frame.message) for frame in frames)
    return b"".join(chunks.codes_of(header, message.chunk) for message in messages)


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
