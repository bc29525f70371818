"""All clients of a round, carried through it together: who came in time, and who did not."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from fedaq.errors import ProtocolError, reason_name
from fedaq.process.logs import event
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.rounds.exchange import exchange
from fedaq_server.rounds.reports import Report
from fedaq_server.rounds.round import Round
from fedaq_server.transport.client import (
    Client,
    DeclinedError,
    DisconnectedError,
    EmptyError,
)
from fedaq_server.transport.faults import OF_VALUES, blame, is_fault

if TYPE_CHECKING:
    from fedaq_server.rounds.masking import Masking

log = logging.getLogger(__name__)

NOTICE_S = 1.0


async def collect(current: Round) -> list[Report]:
    """Return the reports of the clients that finished in time, in the order of their names.

    None at all if they are fewer than a round needs.
    """
    at_work = {client.name: client for client in current.clients}
    tasks = {asyncio.create_task(_carry(name, at_work, current)): name for name in at_work}
    if current.masking is not None:
        _stop_waiting_for_whoever_ends(current.masking, tasks)
    try:
        await asyncio.wait(tasks, timeout=current.deadline_s)
    finally:
        # Also when the run is stopped: no exchange outlives its round.
        late = [task for task in tasks if task.cancel()]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if current.masking is not None:
            current.masking.close()
    # Of masked updates, those count that are in the sum, whatever became of their senders.
    summed = {} if current.masking is None else current.masking.reports
    reports, refused = list(summed.values()), []
    for name, result in zip(at_work, results, strict=True):
        if isinstance(result, Report):
            if name not in summed:
                reports.append(result)
        elif isinstance(result, ProtocolError | DeclinedError | DisconnectedError):
            if name not in summed:
                _left_out(current, name, result)
            if isinstance(result, ProtocolError):
                refused.append((at_work[name], result))
        elif not isinstance(result, asyncio.CancelledError):
            raise result
    if current.masking is not None and current.masking.steps.failure:
        _tell_why_there_is_no_sum(current, current.masking.steps.failure)
    await _judge(current, len(reports), refused)
    await asyncio.gather(*(_set_aside(at_work[tasks[task]], current) for task in late))
    return reports if _are_enough(current, len(reports)) else []


def _stop_waiting_for_whoever_ends(
    masking: "Masking", tasks: Mapping["asyncio.Task[Report]", str]
) -> None:
    for task in tasks:
        task.add_done_callback(lambda done: masking.steps.leave(tasks[done]))


def _tell_why_there_is_no_sum(current: Round, why: str) -> None:
    log.warning(
        "round %d: no sum of masked updates: %s", current.number, why,
        extra=event("no sum", round=current.number, reason=why),
    )  # fmt: skip


async def _carry(name: str, at_work: dict[str, Client], current: Round) -> Report:
    """Carry a client through the round, from its beginning again if it lost its connection."""
    federation, differences = current.federation, current.differences
    roster, wait_s = federation.roster, federation.settings.network.return_wait_s
    while True:
        client = at_work[name]
        try:
            report = await exchange(client, current)
        except DeclinedError as error:
            current.declined[str(error.decline.reason)] += 1
            if isinstance(error, EmptyError):
                await _let_go(client, current, error)
            raise
        except DisconnectedError:
            # The masks of one that comes back are others than those that it had promised.
            gone = client.left or (
                current.masking is not None and current.masking.steps.has_come(name)
            )
            back = None if gone else await roster.wait_for_return(client, wait_s)
            if back is None or not _is_as_before(back, client):
                raise
            at_work[name] = back
            if differences is not None:
                await asyncio.shield(differences.advanced)
                differences.catch_ups[name] = differences.history.catch_up(
                    back.holds, differences.before
                )
        else:
            if report.ranges:
                roster.ranges[name] = report.ranges
            return report


def _is_as_before(back: Client, client: Client) -> bool:
    """Tell whether a client returned as what the round was planned for."""
    if client.relayed is not None:
        # Of a relay only the weight that it reports in the end matters.
        return back.relayed is not None
    return back.relayed is None and back.examples == client.examples


async def _let_go(client: Client, current: Round, error: EmptyError) -> None:
    """Part with a client that is empty, unless a later round may be cheaper."""
    federation, why = current.federation, error.decline.detail
    if client.radio is None and federation.settings.energy.fades:
        return
    federation.accounts.leaves(client.name, current.number, why)
    client.left = True
    await federation.roster.declare(client, error.decline)
    # It may have stopped reading.
    with suppress(DisconnectedError, TimeoutError):
        async with asyncio.timeout(NOTICE_S):
            reason = f"nothing is left to spend: {why}"
            await client.send(pb.ServerMessage(finish=pb.Finish(reason=reason, over=True)))


async def _judge(current: Round, counted: int, refused: list[tuple[Client, ProtocolError]]) -> None:
    """Count what was refused against those whose fault it was."""
    conduct = current.federation.conduct
    conduct.learn_norms(current.norms.values())
    conduct.learn_magnitudes(current.magnitudes.values())
    # Where most are refused for their values, it is the model that has gone astray, or the limit.
    forgiven = sum(error.reason in OF_VALUES for _, error in refused) > counted
    for client, error in refused:
        if is_fault(error) and not (forgiven and error.reason in OF_VALUES):
            await blame(conduct, current.federation.roster, client, str(error))


def _left_out(
    current: Round, name: str, error: ProtocolError | DeclinedError | DisconnectedError
) -> None:
    if isinstance(error, ProtocolError):
        reason = reason_name(error.reason)
    else:
        reason = "declined" if isinstance(error, DeclinedError) else "disconnected"
    current.federation.metrics.left_out.labels(reason).inc()
    log.warning(
        "round %d: %s left out: %s", current.number, name, error,
        extra=event("client left out", round=current.number, client=name, reason=reason,
                    detail=str(error)),
    )  # fmt: skip


def _are_enough(current: Round, reports: int) -> bool:
    quorum = current.federation.settings.quorum
    if reports >= quorum:
        return True
    log.warning(
        "round %d: %d updates arrived and %d are needed; the model stays as it is",
        current.number, reports, quorum,
        extra=event("quorum missed", round=current.number, updates=reports, quorum=quorum),
    )  # fmt: skip
    return False


async def _set_aside(client: Client, current: Round) -> None:
    _left_out(current, client.name, _too_late(current))
    current.federation.roster.set_aside(client)
    # It may have stopped reading, and then nothing can be written to it either.
    with suppress(DisconnectedError, TimeoutError):
        async with asyncio.timeout(NOTICE_S):
            await client.refuse(current.number, _too_late(current))


def _too_late(current: Round) -> ProtocolError:
    return ProtocolError(
        pb.REFUSAL_REASON_DEADLINE,
        f"the update was not there {current.deadline_s:g} s after the round began",
    )
