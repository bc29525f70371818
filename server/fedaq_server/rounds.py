"""The round loop."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fedaq.energy import downlink_j_per_bit
from fedaq.errors import ProtocolError
from fedaq.model import ModelSpec
from fedaq.payload import clipped_ranges, plan_payload, tensor_spreads
from fedaq.quantizer import Floats, Spread
from fedaq.settings import Settings
from fedaq.tasks import Evaluation
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.aggregation import Aggregate
from fedaq_server.broadcast import begin_broadcast, decode_broadcast
from fedaq_server.capture import Capture
from fedaq_server.clients import Client, DisconnectedError, Roster
from fedaq_server.exchange import Report, RoundWork, exchange
from fedaq_server.record import RoundRecord, measure
from fedaq_server.schemes import ClientState, Outcome, Plan, RoundState, Scheme, checked_bits
from fedaq_server.wire import WireCounter

log = logging.getLogger(__name__)

NOTICE_S = 1.0


@dataclass(frozen=True)
class Federation:
    """Everything the round loop works on.

    Attributes
    ----------
    module : nn.Module
        Shares its memory with `model`.
    model : float32, shape (parameters,)
        ``w_k``, the global model.
    evaluate : callable
        Tests the module; called between rounds, off the event loop.
    on_round : callable
        Told of every finished round.
    """

    settings: Settings
    spec: ModelSpec
    module: nn.Module
    model: Floats
    scheme: Scheme
    roster: Roster
    evaluate: Callable[[], Evaluation]
    folder: Path
    on_round: Callable[[RoundRecord], None]


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
            spreads = await asyncio.to_thread(tensor_spreads, federation.spec, federation.model)
            state = _state(federation, number, clients, spreads)
            plan = federation.scheme.plan(state)
            if plan is None:
                break
            work = await _begin(federation, state, plan, clients, folder)
            reports = await _exchange_all(clients, work, federation.roster)
            chunks = await work.broadcast.coded()
            await asyncio.to_thread(_advance, federation, work, chunks)
            evaluation = await asyncio.to_thread(federation.evaluate)
            record = measure(
                state, work.broadcast.payload, reports, evaluation, wire.sample(),
                granted=work.granted, price=work.plan.price, seconds=time.monotonic() - started,
            )  # fmt: skip
            federation.scheme.learn(_outcome(record, reports))
            federation.on_round(record)
            if settings.target_accuracy and record.test_accuracy >= settings.target_accuracy:
                break


def _state(
    federation: Federation, number: int, clients: list[Client], spreads: tuple[Spread, ...]
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
        weight_ranges=spreads,
        clients=states,
        downlink_j_per_bit=downlink_j_per_bit(
            [client.radio for client in states.values()], broadcast=settings.energy.broadcast
        ),
    )


async def _begin(
    federation: Federation,
    state: RoundState,
    plan: Plan,
    clients: list[Client],
    folder: ThreadPoolExecutor,
) -> RoundWork:
    settings = federation.settings
    bits = checked_bits(plan.downlink_bits, federation.spec)
    spreads = state.weight_ranges
    ranges = clipped_ranges(spreads, bits) if plan.clip else spreads
    broadcast = begin_broadcast(
        plan_payload(federation.spec, bits, ranges),
        federation.model,
        settings.seed,
        state.round,
        settings.network.chunk_bytes,
        folder,
    )
    capture = Capture(federation.folder / "payloads") if settings.capture else None
    return RoundWork(
        state=state,
        plan=plan,
        scheme=federation.scheme,
        broadcast=broadcast,
        aggregate=Aggregate(
            federation.spec, sum(client.examples for client in clients), federation.folder
        ),
        deadline_s=settings.network.round_deadline_s,
        folder=folder,
        capture=capture,
        chunk_bytes=settings.network.chunk_bytes,
    )


async def _exchange_all(clients: list[Client], work: RoundWork, roster: Roster) -> list[Report]:
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
            log.warning("round %d: %s left out: %s", work.state.round, client.name, result)
        elif not isinstance(result, asyncio.CancelledError):
            raise result
    await asyncio.gather(*(_set_aside(tasks[task], work, roster) for task in late))
    return reports


async def _set_aside(client: Client, work: RoundWork, roster: Roster) -> None:
    log.warning("round %d: %s left out: too late", work.state.round, client.name)
    roster.set_aside(client)
    # It may have stopped reading, and then nothing can be written to it either.
    with suppress(DisconnectedError, TimeoutError):
        async with asyncio.timeout(NOTICE_S):
            await client.refuse(work.state.round, _too_late(work))


def _too_late(work: RoundWork) -> ProtocolError:
    return ProtocolError(
        pb.REFUSAL_REASON_DEADLINE,
        f"the update was not there {work.deadline_s:g} s after the round began",
    )


def _advance(federation: Federation, work: RoundWork, chunks: list[pb.Chunk]) -> None:
    """Turn the global model into that of the next round."""
    header = work.broadcast.payload
    if work.capture is not None:
        codes = b"".join(chunk.data for chunk in chunks)
        work.capture.keep(header, work.state.round, "server", codes)
    if federation.settings.base == "broadcast":
        decode_broadcast(header, chunks, federation.model)
    work.aggregate.apply(federation.model, federation.model)


def _outcome(record: RoundRecord, reports: list[Report]) -> Outcome:
    return Outcome(
        round=record.round,
        test_accuracy=record.test_accuracy,
        test_loss=record.test_loss,
        train_loss=record.train_loss,
        update_ranges={report.client.name: report.ranges for report in reports},
        energy_j=record.energy_j,
    )
