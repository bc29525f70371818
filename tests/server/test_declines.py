"""Clients that decline against the rules, or play with them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from fedaq.declines import LONGEST_DETAIL
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.dashboard.watch import Watch
from fedaq_server.run import Run
from system.live import learner, live_server, settings_of, take_part
from system.raw_client import FinishedError, RawClient, raw_client

HONEST = 2
ROUNDS = 4
BUSY = pb.ClientMessage(readiness=pb.Readiness(declined=pb.DECLINE_REASON_BUSY))
READY = pb.ClientMessage(readiness=pb.Readiness())


def federate(folder: Path, act: Callable[[RawClient, Run], Awaitable[None]]) -> Run:
    """Run two honest clients, whose rounds take a while, and one that acts; it ends as it likes."""
    settings = settings_of(HONEST + 1, rounds=ROUNDS, scheme="fixed", network__round_deadline_s=100)

    async def mallory(address: str, run: Run) -> None:
        async with raw_client(address, run.spec) as client:
            await client.join(examples=500)
            await act(client, run)

    async def live() -> Run:
        async with (
            live_server(settings, folder) as (run, address),
            asyncio.TaskGroup() as group,
        ):
            group.create_task(mallory(address, run))
            for number in range(HONEST):
                part = learner(number, HONEST, pause_s=0.3)
                group.create_task(take_part(address, f"honest-{number}", part))
        return run

    return asyncio.run(live())


async def to_the_end(client: RawClient) -> None:
    with pytest.raises(FinishedError):
        await client.receive("nothing more")


def test_a_flood_of_changes_ends_the_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(client: RawClient, run: Run) -> None:
        for number in range(1200):
            await client.send(BUSY if number % 2 else READY)
        await client.status()

    with caplog.at_level(logging.WARNING):
        run = federate(tmp_path, act)
    assert "more than 20 messages a second that no round asked for" in caplog.text
    assert run.conduct.strikes == {"mallory": 1}
    assert [record.clients for record in run.records] == [HONEST] * ROUNDS


def test_who_declined_stays_away_whatever_else_it_says(tmp_path: Path) -> None:
    async def act(client: RawClient, run: Run) -> None:
        number = (await client.receive("plan")).plan.round
        await client.send(BUSY)
        # Of the round that it gave up, and of one that is over.
        await client.report(number, holds=b"")
        assert (await client.receive("refusal")).refusal.reason == pb.REFUSAL_REASON_STALE_ROUND
        for _ in range(10):
            await client.send(pb.ClientMessage(heartbeat=pb.Heartbeat()))
        await to_the_end(client)
        assert client.plan.round == number

    run = federate(tmp_path, act)
    assert [(r.clients, r.left_out, r.declined) for r in run.records] == [
        (HONEST, 1, {"busy": 1}), *[(HONEST, 0, {"busy": 1})] * (ROUNDS - 1),
    ]  # fmt: skip
    assert run.conduct.strikes == {}


def test_what_it_declined_after_its_update_counted_is_the_next_round(tmp_path: Path) -> None:
    async def act(client: RawClient, run: Run) -> None:
        header = await client.granted((await client.receive("plan")).plan.round)
        await client.announce(header)
        await client.chunk(1, 0, bytes(header.code_bytes))
        await client.receive("receipt")
        await client.send(BUSY)
        await to_the_end(client)
        assert client.plan.round == 1

    run = federate(tmp_path, act)
    assert [(r.clients, r.declined) for r in run.records] == [
        (HONEST + 1, {}), *[(HONEST, {"busy": 1})] * (ROUNDS - 1),
    ]  # fmt: skip


def test_ready_again_in_the_same_breath_is_the_next_round(tmp_path: Path) -> None:
    """And no disconnection, whose return would be waited for."""

    async def act(client: RawClient, run: Run) -> None:
        await client.receive("plan")
        await client.send(BUSY)
        await client.send(READY)
        assert (await client.receive("plan")).plan.round == 2
        await client.send(BUSY)
        await to_the_end(client)

    run = federate(tmp_path, act)
    assert [r.declined for r in run.records] == [{"busy": 1}] * ROUNDS
    assert [r.left_out for r in run.records] == [1, 1, 0, 0]
    assert sum(record.seconds for record in run.records) < 10


def test_long_details_and_unknown_reasons_are_cut_to_what_is_known(tmp_path: Path) -> None:
    said = pb.Readiness(declined=77, detail="\x1b[2J" + "x" * 3000)  # type: ignore[arg-type]
    rows = []

    async def act(client: RawClient, run: Run) -> None:
        await client.receive("plan")
        await client.send(pb.ClientMessage(readiness=said))
        await run.roster._wait(lambda: run.roster.declined() == {"other": 1}, 0, 30.0)
        rows.append(Watch(run).view().clients["mallory"])
        await to_the_end(client)

    run = federate(tmp_path, act)
    assert rows[0].state == "declined: other"
    assert rows[0].reason == "?[2J" + "x" * (LONGEST_DETAIL - 4)
    assert run.records[-1].declined == {"other": 1}


def test_a_digest_that_is_none_is_a_fault(tmp_path: Path) -> None:
    async def act(client: RawClient, run: Run) -> None:
        await client.receive("plan")
        await client.send(pb.ClientMessage(readiness=pb.Readiness(holds=bytes(9))))
        code, why = await client.status()
        assert (code, why) == (
            grpc.StatusCode.INVALID_ARGUMENT, "a digest of 9 bytes; it has 8",
        )  # fmt: skip

    assert federate(tmp_path, act).conduct.strikes == {"mallory": 1}
