"""One client's part in one round: model down, ranges up, grant down, update up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from math import ceil, isnan
from typing import TypeVar

from fedaq.codec import payload
from fedaq.codec.chunks import Chunk
from fedaq.codec.model import DIGEST_BYTES
from fedaq.codec.payload import ZERO, Data, Payload, TensorCode, coarser_steps
from fedaq.codec.quantizer import RAW_BITS, Spread
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.capture import Capture
from fedaq_server.rounds.aggregation import Aggregate, Contribution, check_magnitude
from fedaq_server.rounds.broadcast import Broadcast
from fedaq_server.rounds.differences import CatchUp, History
from fedaq_server.rounds.robust import Robust
from fedaq_server.schemes.scheme import Plan, RoundState, Scheme, checked
from fedaq_server.transport.faults import TrainingFailedError
from fedaq_server.transport.roster import Client, Phase

T = TypeVar("T")

# The greatest float32: a sum over all examples of all clients stays finite in float64.
LARGEST_LOSS = 3.4028234663852886e38
# Chunks may be a sixteenth of their largest size on average, and a few more whatever it is.
CHUNKS_OF_ONE, FEW_CHUNKS = 16, 64


@dataclass(frozen=True)
class RoundWork:
    """What the exchanges of one round share.

    Attributes
    ----------
    worker : Executor
        One thread: folding is serial, so the running sum needs no lock.
    chunk_bytes : int
        The largest chunk of an update.
    squeeze : bool
        Whether updates are entropy-coded.
    differences : Differences, optional
        If the broadcast is a difference.
    weights : mapping of str to int
        Of each client's update.
    norm_limit : float
        The largest L2 norm of an update.
    norms : dict of str to float
        L2 norms of the updates that arrived whole, by client.
    charged : dict of str to int
        Payload bytes that each client's update took; those it was told to send at the most if
        it was not whole in time, for they may have cost energy too.
    """

    state: RoundState
    plan: Plan
    scheme: Scheme
    broadcast: Broadcast
    aggregate: Aggregate | Robust
    deadline_s: float
    worker: Executor
    capture: Capture | None
    chunk_bytes: int
    squeeze: bool
    differences: "Differences | None"
    weights: Mapping[str, int]
    norm_limit: float
    norms: dict[str, float] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)

    async def fold(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a step of the aggregation off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, function, *arguments)


@dataclass(frozen=True)
class Differences:
    """A round in which clients are sent what their model lacks.

    Attributes
    ----------
    history : History
    catch_ups : dict of str to CatchUp
        What each client needs first, or instead.
    before : int
        Differences that were sent in earlier rounds.
    advanced : Future of bytes
        The digest of the model that all hold then; there once `history` is at it.
    """

    history: History
    catch_ups: dict[str, CatchUp]
    before: int
    advanced: asyncio.Future[bytes]


@dataclass(frozen=True)
class Report:
    """What one client brought to the round; `payload_bytes` is what its update took."""

    client: Client
    weight: int
    ranges: tuple[Spread, ...]
    train_loss: float
    update: Payload
    payload_bytes: int


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
    largest = RAW_BITS // 8 * work.state.spec.parameters
    client.give_credit(_most_chunks(largest, work.chunk_bytes))
    phase = Phase.WAITING
    try:
        client.phase = Phase.RECEIVING
        await _send_model(client, work)
        client.phase = Phase.TRAINING
        ranges, loss = await _receive_report(client, work)
        client.phase = Phase.SENDING
        granted, limit_bytes = await _grant(client, work, ranges)
        update = await _receive_update(client, work, granted, limit_bytes)
        phase = Phase.DONE
    except ProtocolError as error:
        await client.refuse(work.state.round, error)
        raise
    finally:
        client.phase = phase
        client.close_round()
    weight, payload_bytes = work.weights[client.name], work.charged[client.name]
    return Report(client, weight, ranges, loss, update, payload_bytes)


async def _send_model(client: Client, work: RoundWork) -> None:
    payloads = 1
    if work.differences is not None:
        payloads += len(work.differences.catch_ups[client.name].missed)
    plan = pb.RoundPlan(
        round=work.state.round,
        rounds=work.state.rounds,
        deadline_s=work.deadline_s,
        downlink_bits=work.broadcast.payload.bits,
        uplink_bits=work.plan.uplink_bits[client.name],
        price=work.plan.price,
        clip=work.plan.clip,
        payloads=payloads,
        entropy=work.squeeze,
        prove=work.differences is not None,
        chunk_bytes=work.chunk_bytes,
    )
    await client.send(pb.ServerMessage(plan=plan))
    async for message in _model(client, work):
        await client.stream.write(message)


async def _model(client: Client, work: RoundWork) -> AsyncIterator[bytes]:
    differences = work.differences
    if differences is not None:
        history, catch_up = differences.history, differences.catch_ups[client.name]
        if catch_up.ahead and client.holds != await asyncio.shield(differences.advanced):
            catch_up = differences.catch_ups[client.name] = history.whole()
        if catch_up.whole:
            await asyncio.shield(differences.advanced)
            frames = history.whole_frames(work.state.round, work.chunk_bytes, work.worker)
            async for message in frames:
                yield message
            return
        async for message in history.frames(catch_up.missed, work.worker):
            yield message
    async for message in work.broadcast.messages():
        yield message


async def _receive_report(client: Client, work: RoundWork) -> tuple[tuple[Spread, ...], float]:
    report = (await client.expect("range_report")).range_report
    tensors = work.state.spec.tensors
    if len(report.ranges) != len(tensors):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"the range report has {len(report.ranges)} tensors, the model {len(tensors)}",
        )
    if isnan(report.train_loss):
        raise TrainingFailedError(
            pb.REFUSAL_REASON_NOT_FINITE, f"the training loss {report.train_loss} is no finite loss"
        )
    ranges = tuple(
        payload.reported_spread(tensor.name, message)
        for tensor, message in zip(tensors, report.ranges, strict=True)
    )
    for tensor, spread in zip(tensors, ranges, strict=True):
        check_magnitude(tensor.name, spread)
    if not abs(report.train_loss) <= LARGEST_LOSS:
        raise ProtocolError(
            pb.REFUSAL_REASON_NOT_FINITE, f"the training loss {report.train_loss} is no finite loss"
        )
    if work.differences is not None:
        await _check_model(client, work.differences, report.holds)
    return ranges, report.train_loss


async def _check_model(client: Client, differences: Differences, holds: bytes) -> None:
    if len(holds) > DIGEST_BYTES:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"a digest of {len(holds)} bytes; it has {DIGEST_BYTES}",
        )
    client.holds = holds
    if holds != await asyncio.shield(differences.advanced):
        raise ProtocolError(
            pb.REFUSAL_REASON_OTHER_MODEL,
            "you trained from another model than the one that was sent; what you lack comes "
            "with the next round",
        )


async def _grant(
    client: Client, work: RoundWork, ranges: tuple[Spread, ...]
) -> tuple[Payload, int | None]:
    """Tell the client its bits; return the payload that has them, and its limit in bytes."""
    state = work.state
    grant = checked(
        work.scheme.grant(state, work.plan, state.clients[client.name], ranges), ranges, state.spec
    )
    granted = payload.plan_payload(state.spec, grant.bits, ranges, grant.steps)
    at_most = granted.payload_bytes
    if grant.limit_bytes is not None:
        at_most = min(at_most, grant.limit_bytes)
    work.charged[client.name] = at_most
    message = pb.UplinkGrant(
        round=state.round,
        uplink_bits=granted.bits,
        uplink_steps=grant.steps,
        limit_bytes=grant.limit_bytes or 0,
    )
    await client.send(pb.ServerMessage(grant=message))
    return granted, grant.limit_bytes


async def _receive_update(
    client: Client, work: RoundWork, granted: Payload, limit_bytes: int | None
) -> Payload:
    message = (await client.expect("update")).update
    update = payload.from_message(work.state.spec, message)
    if not all(map(_is_granted, update.codes, granted.codes)):
        raise ProtocolError(
            pb.REFUSAL_REASON_BITS_NOT_GRANTED,
            f"the update uses bits {update.bits}; granted were {granted.bits}",
        )
    contribution = Contribution(work.aggregate, update, work.weights[client.name])
    most_chunks = _most_chunks(update.code_bytes, work.chunk_bytes)
    captured: list[Data] = []
    try:
        while not contribution.complete:
            # What it holds is gone before the next chunk is waited for.
            await _fold_chunk(client, work, contribution, captured)
            _check_count(contribution.chunks, most_chunks)
            if limit_bytes is not None:
                _check_limit(contribution, limit_bytes)
        work.norms[client.name] = contribution.norm
        _check_norm(contribution.norm, work.norm_limit)
        await client.send(pb.ServerMessage(receipt=pb.Receipt(round=work.state.round)))
    except BaseException:
        # A cancelled fold may still run; the undo waits its turn behind it.
        await asyncio.shield(work.fold(contribution.undo))
        raise
    contribution.commit()
    work.charged[client.name] = contribution.payload_bytes
    if work.capture is not None:
        work.capture.keep(update, work.state.round, client.name, b"".join(captured))
    return update


async def _fold_chunk(
    client: Client, work: RoundWork, contribution: Contribution, captured: list[Data]
) -> None:
    chunk = await client.expect_chunk()
    _check_size(chunk, work.chunk_bytes)
    codes = await work.fold(contribution.add, chunk)
    if work.capture is not None:
        captured.append(codes)


def _is_granted(code: TensorCode, granted: TensorCode) -> bool:
    """Tell whether a code is the granted one, or a coarser one that keeps a limit."""
    if granted.step and code.step:
        return code.step in coarser_steps(granted.step) and code.bits <= granted.bits
    if granted.step or code.step:
        return bool(granted.step) and code == ZERO
    return code.bits == granted.bits


def _check_limit(contribution: Contribution, limit_bytes: int) -> None:
    if contribution.payload_bytes > limit_bytes:
        raise ProtocolError(
            pb.REFUSAL_REASON_BITS_NOT_GRANTED,
            f"the update takes more than the {limit_bytes} bytes that were granted",
        )


def _check_size(chunk: Chunk, largest: int) -> None:
    # Entropy-coded or not: otherwise few bytes could ask for the memory of a whole payload.
    size = max(len(chunk.data), chunk.code_bytes)
    if size > largest:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"a chunk of {size} bytes; at most {largest} are accepted",
        )


def _most_chunks(code_bytes: int, chunk_bytes: int) -> int:
    return FEW_CHUNKS + CHUNKS_OF_ONE * ceil(code_bytes / chunk_bytes)


def _check_count(chunks: int, most: int) -> None:
    if chunks > most:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE, f"more than {most} chunks of an update; send larger ones"
        )


def _check_norm(norm: float, limit: float) -> None:
    if norm > limit:
        raise ProtocolError(
            pb.REFUSAL_REASON_NORM,
            f"the L2 norm of the update is {norm:g}; after those of recent rounds, {limit:g} is "
            "the most",
        )
