"""One client's part in one round: model down, ranges up, grant down, update up."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from math import hypot, nan, sqrt

from fedaq.codec import headers, payload
from fedaq.codec.chunks import Chunk, expected
from fedaq.codec.common_grid import reach_of
from fedaq.codec.given import NOTHING, Dither, Given
from fedaq.codec.payload import ZERO, Payload, TensorCode, coarser_steps
from fedaq.codec.quantizer import RAW_BITS, Range, Spread, derive_key
from fedaq.declines import Decline, Reason
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.privacy.release import Release
from fedaq_server.records.record import Relayed
from fedaq_server.rounds.aggregation import STATISTICS_SHARE, Contribution
from fedaq_server.rounds.chunk_limits import check_count, check_size, most_chunks
from fedaq_server.rounds.differences import CatchUp
from fedaq_server.rounds.reports import (
    Report,
    magnitude_of,
    receive_clipped_report,
    receive_report,
)
from fedaq_server.rounds.round import Differences, Round
from fedaq_server.schemes.masked_bytes import widths_of
from fedaq_server.schemes.scheme import granted_up
from fedaq_server.schemes.sparse import sparsity_of
from fedaq_server.transport.client import Client, EmptyError, Phase

# Two computations of one norm differ by less.
NORM_ROUNDING = 1 + 1e-9


async def exchange(client: Client, current: Round) -> Report:
    """Carry one client through the round.

    Raises
    ------
    ProtocolError
        If the client broke the protocol; it has been told, and its update does not count.
    DeclinedError
        If it gave up the round, or cannot pay for it.
    DisconnectedError
        If its stream ended.
    """
    client.open_round(current.number)
    largest = RAW_BITS // 8 * current.state.spec.parameters
    client.give_credit(most_chunks(largest, current.chunk_bytes))
    phase = Phase.WAITING
    try:
        down_bytes = await _paid(client, current)
        client.enter(Phase.RECEIVING)
        await _send_model(client, current)
        client.enter(Phase.TRAINING)
        release = current.state.release
        if current.masking is None and release is not None:
            report = await _exchange_clipped(client, current, release, down_bytes)
        elif current.masking is None:
            report = await _exchange_seen(client, current, down_bytes)
        else:
            from fedaq_server.rounds.masked_exchange import exchange_masked

            report = await exchange_masked(client, current, current.masking)
        phase = Phase.DONE
    except ProtocolError as error:
        await client.refuse(current.number, error)
        raise
    finally:
        client.enter(phase)
        client.close_round()
    return report


async def _exchange_seen(client: Client, current: Round, down_bytes: int) -> Report:
    """Carry a client that has the model through the rest of the round; its update is seen."""
    ranges, loss, validation, training_j, relayed = await receive_report(client, current)
    weight = _weight(client, current, relayed)
    current.magnitudes[client.name] = magnitude_of(ranges, current.state.spec)
    client.enter(Phase.SENDING)
    granted, limit_bytes = await _grant(client, current, ranges, down_bytes)
    update = await _receive_update(client, current, granted, limit_bytes, weight)
    payload_bytes = current.charged[client.name]
    return Report(
        client, weight, ranges, loss, update, payload_bytes, validation, training_j, relayed
    )


async def _exchange_clipped(
    client: Client, current: Round, release: Release, down_bytes: int
) -> Report:
    """Carry a client on whose update noise is to come; of it nothing but the codes is known."""
    within, training_j = await receive_clipped_report(client, current)
    client.enter(Phase.SENDING)
    ranges = (Spread(-release.clip, release.clip, 0.0, 0.0),) * len(current.state.spec.tensors)
    granted, limit_bytes = await _grant(client, current, ranges, down_bytes)
    weight = current.weights[client.name]
    update = await _receive_update(client, current, granted, limit_bytes, weight)
    payload_bytes = current.charged[client.name]
    return Report(
        client, weight, (), nan, update, payload_bytes, None, training_j, within_clip=within
    )


def _weight(client: Client, current: Round, relayed: Relayed | None) -> int:
    """Return what an update counts: of a relay no more than the examples that are behind it."""
    weight = current.weights[client.name]
    return weight if relayed is None else min(weight, relayed.examples)


async def _paid(client: Client, current: Round) -> int:
    """Return the bytes that are to go down to a client, 0 if it may spend any amount.

    Raises
    ------
    EmptyError
        If it cannot pay for them, and for an update that is worth it.
    """
    name, accounts = client.name, current.federation.accounts
    if not accounts.limits(name):
        return 0
    down_bytes, whole = current.plan.alone_bytes.get(name, 0), False
    if current.differences is not None:
        catch_up = await _catch_up(client, current, current.differences)
        down_bytes, whole = down_bytes + catch_up.payload_bytes, catch_up.whole
    if not whole:
        down_bytes += await current.broadcast.payload_bytes()
    least = len(current.state.spec.tensors) * ZERO.header_bytes
    up_bytes = max(least, current.plan.least_up_bytes.get(name, 0))
    why = accounts.pays(name, current.state.clients[name].radio, down_bytes, up_bytes)
    if why:
        current.unpaid.add(name)
        raise EmptyError(name, Decline(Reason.EMPTY, why))
    return down_bytes


async def _send_model(client: Client, current: Round) -> None:
    payloads = 1
    if current.differences is not None:
        payloads += len(current.differences.catch_ups[client.name].missed)
    sparsity = sparsity_of(current.federation.settings)
    plan = pb.RoundPlan(
        round=current.number,
        rounds=current.state.rounds,
        deadline_s=current.deadline_s,
        downlink_bits=current.broadcast.payload.bits,
        uplink_bits=current.plan.uplink_bits[client.name],
        price=current.plan.price,
        clip=current.plan.clip,
        payloads=payloads,
        entropy=current.squeeze,
        prove=current.differences is not None,
        chunk_bytes=current.chunk_bytes,
        measure=current.federation.tests_held(current.number),
        keep=0 if sparsity is None else sparsity.keep,
        ternary=sparsity is not None and sparsity.ternary,
        masking=_masking_message(client, current),
        clipping=_clipping_message(current.state.release),
        one_in=current.plan.one_in,
    )
    if client.relayed is not None:
        plan.weight = current.state.clients[client.name].weight
        plan.relay_j = current.allowances[client.name]
    await client.send(pb.ServerMessage(plan=plan))
    async for message in _model(client, current):
        client.check_readiness()
        await client.stream.write(message)
        client.moved_bytes += len(message)


def _masking_message(client: Client, current: Round) -> pb.Masking | None:
    """Return how updates are masked, if they are."""
    if current.masking is None:
        return None
    grid = current.plan.grid
    return pb.Masking(
        steps=[code.step for code in grid],
        reaches=[reach_of(code) for code in grid],
        widths=widths_of(grid, current.state.total_weight, current.state.release),
        weight=current.weights[client.name],
    )


def _clipping_message(release: Release | None) -> pb.Clipping | None:
    """Return how updates are clipped, if they are."""
    if release is None:
        return None
    return pb.Clipping(norm=release.clip, rounded=release.rounded, count=release.adapts)


async def _model(client: Client, current: Round) -> AsyncIterator[bytes]:
    differences = current.differences
    if differences is not None:
        history, catch_up = differences.history, await _catch_up(client, current, differences)
        if catch_up.whole:
            await asyncio.shield(differences.advanced)
            sent = []
            frames = history.whole_frames(current.number, current.chunk_bytes, current.worker)
            whole_bytes = 0
            async for message, cost_bytes in frames:
                if current.capture is not None:
                    sent.append(message)
                yield message
                whole_bytes += cost_bytes
            # It was planned with the most that it may take.
            differences.catch_ups[client.name] = replace(catch_up, payload_bytes=whole_bytes)
            if current.capture is not None:
                spec = current.state.spec
                await asyncio.to_thread(current.capture.keep_sent, spec, sent, "server-whole")
            return
        async for message in history.frames(catch_up.missed, current.worker):
            yield message
    async for message in current.broadcast.messages():
        yield message


async def _catch_up(client: Client, current: Round, differences: Differences) -> CatchUp:
    """Return what a client needs first, or instead; of one that was ahead, that is known late."""
    catch_up = differences.catch_ups[client.name]
    if catch_up.ahead and client.holds != await asyncio.shield(differences.advanced):
        catch_up = differences.catch_ups[client.name] = differences.history.whole()
    return catch_up


async def _grant(
    client: Client, current: Round, ranges: tuple[Spread, ...], down_bytes: int
) -> tuple[Payload, int | None]:
    """Tell the client its bits; return the payload that has them, and its limit in bytes.

    Raises
    ------
    EmptyError
        If it cannot pay for what the scheme chose, and that cannot be coarser.
    """
    state, scheme = current.state, current.federation.scheme
    chosen = scheme.grant(state, current.plan, state.clients[client.name], ranges)
    grant = granted_up(chosen, ranges, state.spec)
    reaches = [reach_of(code) for code in current.plan.grid]
    coded: Sequence[Range] = [Range(-reach, reach) for reach in reaches] or ranges
    granted = payload.plan_payload(state.spec, grant.bits, coded, grant.steps)
    at_most, limit_bytes = granted.payload_bytes, grant.limit_bytes
    radio = state.clients[client.name].radio
    affordable = current.federation.accounts.most_up(client.name, radio, down_bytes)
    if affordable is not None and affordable < min(at_most, limit_bytes or at_most):
        if not all(code.step for code in granted.codes if code.bits):
            why = f"{at_most} bytes are due, and it can pay for {affordable}"
            raise EmptyError(client.name, Decline(Reason.EMPTY, why))
        limit_bytes = affordable
    if limit_bytes is not None:
        at_most = min(at_most, limit_bytes)
    current.charged[client.name] = at_most
    message = pb.UplinkGrant(
        round=state.round,
        uplink_bits=granted.bits,
        uplink_steps=grant.steps,
        limit_bytes=limit_bytes or 0,
        uplink_reaches=reaches,
    )
    await client.send(pb.ServerMessage(grant=message))
    return granted, limit_bytes


async def _receive_update(
    client: Client, current: Round, granted: Payload, limit_bytes: int | None, weight: int
) -> Payload:
    message = (await expected(client.expect, "update")).update
    update = headers.from_message(current.state.spec, message)
    kept = _is_granted if current.state.release is None else _is_exactly
    if not all(map(kept, update.codes, granted.codes)):
        raise ProtocolError(
            pb.REFUSAL_REASON_BITS_NOT_GRANTED,
            f"the update uses bits {update.bits}; granted were {granted.bits}",
        )
    seed = current.federation.settings.seed
    known: Given = Dither(partial(derive_key, seed, "uplink", client.name, current.number))
    if sparsity_of(current.federation.settings) is not None:
        known = NOTHING
    release = current.state.release
    share = STATISTICS_SHARE if release is None else 1.0
    contribution = Contribution(current.aggregate, update, weight, client.name, known, share)
    most = most_chunks(update.code_bytes, current.chunk_bytes)
    captured: list[Chunk] = []
    try:
        while not contribution.complete:
            # What it holds is gone before the next chunk is waited for.
            await _fold_chunk(client, current, contribution, captured)
            check_count(contribution.chunks, most)
            if limit_bytes is not None:
                _check_limit(contribution, limit_bytes)
        if release is None:
            current.norms[client.name] = contribution.norm
            _check_norm(contribution.norm, _norm_limit(current, update))
        else:
            _check_clipped(contribution.norm, release)
        if current.capture is not None:
            sent = [chunk.to_message() for chunk in captured]
            await asyncio.to_thread(
                current.capture.keep, update.spec, message, sent, client.name, known
            )
        await client.send(pb.ServerMessage(receipt=pb.Receipt(round=current.number)))
    except BaseException:
        # A cancelled fold may still run; the undo waits its turn behind it.
        await asyncio.shield(current.on_worker(contribution.undo))
        raise
    contribution.commit()
    current.charged[client.name] = contribution.payload_bytes
    return update


async def _fold_chunk(
    client: Client, current: Round, contribution: Contribution, captured: list[Chunk]
) -> None:
    chunk = await expected(client.expect, "chunk")
    check_size(chunk, current.chunk_bytes)
    await current.on_worker(contribution.add, chunk)
    client.moved_bytes += len(chunk.data)
    if current.capture is not None:
        captured.append(chunk)


def _is_granted(code: TensorCode, granted: TensorCode) -> bool:
    """Tell whether a code is the granted one, or a coarser one that keeps a limit."""
    if granted.step and code.step:
        return code.step in coarser_steps(granted.step) and code.bits <= granted.bits
    if granted.step or code.step:
        return bool(granted.step) and code == ZERO
    return code.bits == granted.bits


def _is_exactly(code: TensorCode, granted: TensorCode) -> bool:
    """Tell whether a code is on the grid on which noise is, or of zeros."""
    return code in (granted, ZERO)


def _check_clipped(norm: float, release: Release) -> None:
    """Refuse an update that would move the sum by more than its noise is made for."""
    limit = release.rounded * release.step
    if norm > limit * NORM_ROUNDING:
        raise ProtocolError(
            pb.REFUSAL_REASON_NORM,
            f"the L2 norm of the update is {norm:g}; {limit:g} is the most (privacy.clip)",
        )


def _check_limit(contribution: Contribution, limit_bytes: int) -> None:
    if contribution.payload_bytes > limit_bytes:
        raise ProtocolError(
            pb.REFUSAL_REASON_BITS_NOT_GRANTED,
            f"the update takes more than the {limit_bytes} bytes that were granted",
        )


def _norm_limit(current: Round, update: Payload) -> float:
    """Return the largest norm that codes of honest values may have.

    A value x, rounded at random to multiples of a step s, has a mean square of at most
    ``x**2 + s |x|``.
    """
    steps = [code.grid.step for code in update.codes if code.grid is not None]
    return hypot(current.norm_limit, sqrt(current.magnitude_limit * max(steps, default=0.0)))


def _check_norm(norm: float, limit: float) -> None:
    if norm > limit:
        raise ProtocolError(
            pb.REFUSAL_REASON_NORM,
            f"the L2 norm of the update is {norm:g}; after those of recent rounds, {limit:g} is "
            "the most",
        )
