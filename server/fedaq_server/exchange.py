"""One client's part in one round: model down, ranges up, grant down, update up."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TypeVar

from fedaq import payload
from fedaq.errors import ProtocolError
from fedaq.payload import Bits, Payload
from fedaq.quantizer import Spread
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.aggregation import Aggregate, Contribution
from fedaq_server.broadcast import Broadcast
from fedaq_server.capture import Capture
from fedaq_server.clients import Client
from fedaq_server.schemes import Plan, RoundState, Scheme, checked_bits

T = TypeVar("T")

# The greatest float32: a sum over all examples of all clients stays finite in float64.
LARGEST_LOSS = 3.4028234663852886e38


@dataclass(frozen=True)
class RoundWork:
    """What the exchanges of one round share.

    Attributes
    ----------
    folder : Executor
        One worker: folding is serial, so the running sum needs no lock.
    chunk_bytes : int
        The largest chunk that a client may send.
    granted : dict of str to int
        Payload bytes that each client was told to send; they cost energy even if the update
        comes too late to count.
    """

    state: RoundState
    plan: Plan
    scheme: Scheme
    broadcast: Broadcast
    aggregate: Aggregate
    deadline_s: float
    folder: Executor
    capture: Capture | None
    chunk_bytes: int
    granted: dict[str, int] = field(default_factory=dict)

    async def fold(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a step of the aggregation off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.folder, function, *arguments)


@dataclass(frozen=True)
class Report:
    """What one client brought to the round."""

    client: Client
    ranges: tuple[Spread, ...]
    train_loss: float
    update: Payload


async def exchange(client: Client, work: RoundWork) -> Report:
    """Carry one client through the round.

    Raises
    ------
    ProtocolError
        If the client broke the protocol; it has been told, and its update does not count.
    DisconnectedError
        If its stream ended.
    """
    client.open_round(work.state.round)
    try:
        await _send_model(client, work)
        ranges, loss = await _receive_report(client, work)
        bits = await _grant(client, work, ranges)
        update = await _receive_update(client, work, bits)
    except ProtocolError as error:
        await client.refuse(work.state.round, error)
        raise
    finally:
        client.close_round()
    client.ranges = ranges
    return Report(client, ranges, loss, update)


async def _send_model(client: Client, work: RoundWork) -> None:
    plan = pb.RoundPlan(
        round=work.state.round,
        rounds=work.state.rounds,
        deadline_s=work.deadline_s,
        downlink_bits=work.plan.downlink_bits,
        uplink_bits=work.plan.uplink_bits[client.name],
        price=work.plan.price,
        clip=work.plan.clip,
    )
    await client.send(pb.ServerMessage(plan=plan))
    async for frame in work.broadcast.frames():
        await client.stream.write(frame)


async def _receive_report(client: Client, work: RoundWork) -> tuple[tuple[Spread, ...], float]:
    report = (await client.expect("range_report")).range_report
    tensors = work.state.spec.tensors
    if len(report.ranges) != len(tensors):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"the range report has {len(report.ranges)} tensors, the model {len(tensors)}",
        )
    ranges = tuple(
        payload.reported_spread(tensor.name, message)
        for tensor, message in zip(tensors, report.ranges, strict=True)
    )
    if not abs(report.train_loss) <= LARGEST_LOSS:
        raise ProtocolError(
            pb.REFUSAL_REASON_NOT_FINITE, f"the training loss {report.train_loss} is no finite loss"
        )
    return ranges, report.train_loss


async def _grant(client: Client, work: RoundWork, ranges: tuple[Spread, ...]) -> Bits:
    state = work.state
    bits = checked_bits(
        work.scheme.grant(state, work.plan, state.clients[client.name], ranges), state.spec
    )
    work.granted[client.name] = payload.payload_bytes(state.spec, bits)
    grant = pb.UplinkGrant(round=state.round, uplink_bits=bits)
    await client.send(pb.ServerMessage(grant=grant))
    return bits


async def _receive_update(client: Client, work: RoundWork, granted: Bits) -> Payload:
    message = (await client.expect("update")).update
    update = payload.from_message(work.state.spec, message)
    if update.bits != granted:
        raise ProtocolError(
            pb.REFUSAL_REASON_BITS_NOT_GRANTED,
            f"the update uses bits {update.bits}; granted were {granted}",
        )
    contribution = Contribution(work.aggregate, update, client.examples)
    chunks = []
    try:
        while not contribution.complete:
            chunk = (await client.expect("chunk")).chunk
            _check_size(chunk, work.chunk_bytes)
            await work.fold(contribution.add, chunk.offset, chunk.data)
            if work.capture is not None:
                chunks.append(chunk.data)
        await client.send(pb.ServerMessage(receipt=pb.Receipt(round=work.state.round)))
    except BaseException:
        # A cancelled fold may still run; the undo waits its turn behind it.
        await asyncio.shield(work.fold(contribution.undo))
        raise
    contribution.commit()
    if work.capture is not None:
        work.capture.keep(update, work.state.round, client.name, b"".join(chunks))
    return update


def _check_size(chunk: pb.Chunk, largest: int) -> None:
    if len(chunk.data) > largest:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"a chunk of {len(chunk.data)} bytes; at most {largest} are accepted",
        )
