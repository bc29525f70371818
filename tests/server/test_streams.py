"""Clients that end, garble or fall silent on their streams, with honest clients beside them."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from fedaq import PROTOCOL_VERSION
from fedaq.codec import model
from fedaq.codec.model import ModelSpec
from fedaq.net.grpc_options import MAX_MESSAGE_BYTES, PATH
from fedaq.tasks import load_task
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.session import Session
from fedaq_client.training import Learner
from fedaq_client.transport.connection import connect
from fedaq_server.run import Run
from fedaq_server.transport.client import Client, DisconnectedError
from server.attacks import (
    HONEST,
    PATIENCE_S,
    ROUNDS,
    Mutilated,
    every_round,
    federate,
    result_of,
    settings_of,
)
from system.live import live_server
from system.raw_client import FinishedError, RawClient, raw_client

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong_unseen")


def test_a_stale_round_is_refused_and_the_open_one_still_counts(tmp_path: Path) -> None:
    told: list[pb.Refusal] = []

    async def attack(client: RawClient, number: int) -> None:
        for other in {0, number - 1, number + 1, 2**32 - 1}:
            await client.report(other)
            told.append((await client.receive("refusal")).refusal)
        header = await client.granted(number)
        await client.announce(header)
        await client.chunk(number, 0, bytes(header.code_bytes))
        assert (await client.receive("receipt")).receipt.round == number

    run = asyncio.run(federate(tmp_path, every_round(attack)))
    assert {refusal.reason for refusal in told} == {pb.REFUSAL_REASON_STALE_ROUND}
    sentences = {refusal.message for refusal in told}
    assert "range_report for round 4294967295, which is not open to you" in sentences
    assert [(record.clients, record.left_out) for record in run.records] == [(3, 0)] * ROUNDS


def test_a_second_join_on_a_stream_is_refused_and_changes_nothing(
    tmp_path: Path, honest_result: str
) -> None:
    told: list[pb.Refusal] = []

    async def attack(client: RawClient, number: int) -> None:
        await client.join(client="someone-else", examples=10**9)
        told.append((await client.receive("refusal")).refusal)
        await client.report(number, ranges=[])

    run = asyncio.run(federate(tmp_path, every_round(attack)))
    assert told[0].reason == pb.REFUSAL_REASON_OUT_OF_ORDER
    assert told[0].message == "you have joined already"
    assert result_of(tmp_path) == honest_result
    assert run.records[-1].clients == HONEST


@pytest.mark.parametrize("after", ["plan", "grant", "header", "chunk"])
@pytest.mark.parametrize("how", ["hang up", "leave"])
def test_who_goes_midway_leaves_no_trace(
    after: str, how: str, tmp_path: Path, honest_result: str
) -> None:
    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.join()
            number = (await client.receive("plan")).plan.round
            if after != "plan":
                header = await client.granted(number)
                if after != "grant":
                    await client.announce(header)
                if after == "chunk":
                    await client.chunk(number, 0, b"\xff" * (header.code_bytes // 2 // 3 * 3))
            if how == "leave":
                await client.send(pb.ClientMessage(leave=pb.Leave(reason="I had enough")))
                assert await client.status() == (grpc.StatusCode.OK, "")
            else:
                client.hang_up()

    run = asyncio.run(federate(tmp_path, act))
    assert result_of(tmp_path) == honest_result
    assert [(record.clients, record.left_out) for record in run.records] == [(2, 1), (2, 0)]


@pytest.mark.parametrize("comes_as_relay", [False, True])
def test_who_returns_as_another_kind_waits_for_the_next_round(
    comes_as_relay: bool, tmp_path: Path, honest_result: str
) -> None:
    relay = {"relayed": pb.Relayed(clients=2, examples=1)}
    seen = []

    async def act(address: str, spec: ModelSpec) -> None:
        for is_relay in (comes_as_relay, not comes_as_relay):
            async with raw_client(address, spec) as client:
                await client.join(**relay if is_relay else {})
                seen.append((await client.receive("plan")).plan.round)
                client.hang_up()

    run = asyncio.run(federate(tmp_path, act))
    assert seen == [1, 2]
    assert result_of(tmp_path) == honest_result
    assert [(record.clients, record.left_out) for record in run.records] == [(2, 1), (2, 1)]


def test_garbage_ends_the_stream_with_a_reason(tmp_path: Path, honest_result: str) -> None:
    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.join()
            await client.receive("plan")
            await client.send(b"\xff\xff\xff")
            assert await client.status() == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "a message is not a fedaq.v1.ClientMessage",
            )

    run = asyncio.run(federate(tmp_path, act))
    assert result_of(tmp_path) == honest_result
    assert [(record.clients, record.left_out) for record in run.records] == [(2, 1), (2, 0)]


def test_too_large_a_message_ends_the_stream_with_a_reason(
    tmp_path: Path, honest_result: str
) -> None:
    ends: list[grpc.RpcError] = []

    def send_much(address: str, spec: ModelSpec) -> None:
        """Blocking: the asyncio client hides the status when it comes amid a write."""
        begun = threading.Event()
        join = pb.Join(protocol_version=PROTOCOL_VERSION, client="mallory", examples=1,
                       model=model.to_message(spec))  # fmt: skip

        def frames() -> Iterator[bytes]:
            yield pb.ClientMessage(join=join).SerializeToString()
            begun.wait(PATIENCE_S)
            yield bytes(MAX_MESSAGE_BYTES + 1)

        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(address, options=options) as channel:
            try:
                call = channel.stream_stream(PATH)  # type: ignore[call-arg]
                for frame in call(frames(), timeout=PATIENCE_S):
                    if pb.ServerMessage.FromString(frame).WhichOneof("kind") == "plan":
                        begun.set()
            except grpc.RpcError as error:
                ends.append(error)

    async def act(address: str, spec: ModelSpec) -> None:
        """Keep the run from its end until the reason has arrived."""
        async with raw_client(address, spec) as witness:
            await witness.join(client="witness")
            await asyncio.to_thread(send_much, address, spec)

    run = asyncio.run(federate(tmp_path, act, clients=HONEST + 2))
    assert ends[0].code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in (ends[0].details() or "")
    assert result_of(tmp_path) == honest_result
    assert [(record.clients, record.left_out) for record in run.records] == [(2, 2), (2, 0)]


def test_who_went_before_its_round_began_is_not_waited_for() -> None:
    """A stream may end while the model is being coded."""

    async def begin() -> None:
        client = Client(
            "anna", 1, None, Mutilated(asyncio.Queue(), asyncio.Queue(), 0, lambda frame: [frame])
        )
        client.hang_up()
        client.open_round(1)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(DisconnectedError):
                await client.expect("range_report")

    asyncio.run(begin())


# ---- Silence ----------------------------------------------------------------


def test_who_never_answers_costs_one_deadline(tmp_path: Path, honest_result: str) -> None:
    """It is told at the deadline; the next round does not wait for it."""
    told: list[pb.Refusal] = []
    deadline_s = 3.0

    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.join()
            await client.receive("plan")
            told.append((await client.receive("refusal")).refusal)
            with pytest.raises(FinishedError):
                await client.receive("plan")

    run = asyncio.run(federate(tmp_path, act, network__round_deadline_s=deadline_s))
    assert told[0].reason == pb.REFUSAL_REASON_DEADLINE
    assert told[0].message == "the update was not there 3 s after the round began"
    assert [(record.clients, record.left_out) for record in run.records] == [(2, 1), (2, 0)]
    assert result_of(tmp_path) == honest_result


def test_who_was_late_takes_part_again_once_it_is_heard_of(tmp_path: Path) -> None:
    rounds: list[int] = []

    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.join()
            late = (await client.receive("plan")).plan.round
            assert (await client.receive("refusal")).refusal.reason == pb.REFUSAL_REASON_DEADLINE
            await client.report(late)
            try:
                while True:
                    rounds.append((await client.receive("plan")).plan.round)
                    await client.report(rounds[-1], ranges=[])
            except FinishedError:
                return

    asyncio.run(federate(tmp_path, act, rounds=20, network__round_deadline_s=2.0))
    assert rounds
    assert rounds == list(range(rounds[0], 21))


@pytest.mark.parametrize("joins", [True, False], ids=["after the join", "before the join"])
def test_silence_ends_a_stream(joins: bool, tmp_path: Path, honest_result: str) -> None:
    ends: list[tuple[grpc.StatusCode, str]] = []

    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            if joins:
                await client.join()
            ends.append(await client.status())

    clients = HONEST + joins
    asyncio.run(federate(tmp_path, act, clients=clients, network__heartbeat_interval_s=0.5))
    code, details = ends[0]
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert details == "nothing was heard of you for 1.5 s; join again"
    assert result_of(tmp_path) == honest_result


# ---- A client that takes nothing --------------------------------------------


def test_who_reads_nothing_costs_one_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its flow-control window is full, so nothing can be written to it: no refusal, no goodbye."""
    monkeypatch.setattr("fedaq_server.run.GOODBYE_S", 1.0)
    monkeypatch.setattr("fedaq_server.serve.LAST_WORDS_S", 1.0)
    settings = settings_of(
        2, task="wire.noise_task:task", scheme="fp32", network__round_deadline_s=4.0,
        network__heartbeat_interval_s=0.5,
    )  # fmt: skip

    async def honest(address: str) -> None:
        task = load_task("wire.noise_task:task", None)
        async with connect(address, PATIENCE_S) as link:
            noise = Learner(task, task.train_data(None))
            await Session(link, "anna", noise, None, lambda _: None).participate()

    async def federate_with_a_wall() -> Run:
        async with (
            live_server(settings, tmp_path) as (run, address),
            raw_client(address, run.spec) as wall,
        ):
            await wall.join(client="wall")
            end = asyncio.create_task(honest(address))
            while not end.done():
                await wall.send(pb.ClientMessage(heartbeat=pb.Heartbeat()))
                await asyncio.wait({end}, timeout=0.3)
            end.result()
        return run

    run = asyncio.run(federate_with_a_wall())
    assert [(record.clients, record.left_out) for record in run.records] == [(1, 1), (1, 0)]
