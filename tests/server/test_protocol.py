"""Clients that break the protocol, at a server on real sockets with honest clients beside them.

Whatever they do, they are told why, and the rounds go on as if they were not there.
"""

import asyncio
import gc
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from types import NoneType
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedaq import PROTOCOL_VERSION
from fedaq.codec import chunks, model
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.errors import FedaqError
from fedaq.net.grpc_options import MAX_MESSAGE_BYTES, PATH
from fedaq.settings import Settings, load_settings
from fedaq.tasks import load_task
from fedaq.tasks.partition import WHOLE, Partition
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.session import Session
from fedaq_client.training import Learner, local_data
from fedaq_client.transport.connection import connect
from fedaq_server.identity.caller import JoinRefusedError
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord, write_run
from fedaq_server.rounds.differences import History
from fedaq_server.run import Run
from fedaq_server.serve import serve
from fedaq_server.transport.roster import Client, DisconnectedError
from fedaq_server.transport.service import serve_client
from fedaq_server.transport.tcp_counter import NoWire
from system.raw_client import EndedError, FinishedError, RawClient, group_bytes, raw_client

HONEST = 2
ROUNDS = 2
PATIENCE_S = 60

Attack = Callable[[RawClient, int], Awaitable[Any]]


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No hostile client makes the server log an error, or lose a task with an exception."""
    with caplog.at_level(logging.WARNING):
        yield
    gc.collect(1)
    errors = [r.getMessage() for r in caplog.records if r.levelno > logging.WARNING]
    # gRPC polls for all event loops of a process, and may wake the closed one of the last test.
    assert [text for text in errors if "PollerCompletionQueue" not in text] == []


def settings_of(clients: int, **flags: Any) -> Settings:
    return load_settings(
        environment={},
        flags={
            "task": "digits",
            "clients": clients,
            "rounds": ROUNDS,
            "scheme": "fixed",
            "fixed.uplink_bits": 3,
            "fixed.downlink_bits": 6,
            "network.port": 0,
            # What follows from repeated misbehaviour is tested in test_conduct.py.
            "limits.strikes": 1000,
            "limits.norm_factor": 0,
            "limits.examples_factor": 1e6,
            **{name.replace("__", "."): value for name, value in flags.items()},
        },
    )


@asynccontextmanager
async def live_server(settings: Settings, folder: Path) -> AsyncIterator[tuple[Run, str]]:
    """Run a server and, once the block is left, wait for the end of its run."""
    run = Run(settings, Ledger(folder), lambda record: None)
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(run, port.set_result))
    try:
        async with asyncio.timeout(PATIENCE_S):
            ready: set[asyncio.Future[Any]] = {server, port}
            await asyncio.wait(ready, return_when=asyncio.FIRST_COMPLETED)
            yield run, f"127.0.0.1:{port.result()}"
            await server
    finally:
        server.cancel()


async def honest_client(address: str, number: int) -> list[int]:
    """Take part to the end and return the rounds in which the update counted."""
    rounds: list[int] = []
    part = learner(Partition(number, HONEST))
    async with connect(address, PATIENCE_S) as link:
        await Session(
            link, f"honest-{number}", part, None, lambda progress: rounds.append(progress.round)
        ).participate()
    return rounds


def learner(partition: Partition = WHOLE) -> Learner:
    task = load_task("digits", None)
    settings = settings_of(1)
    data = local_data(task.train_data(None), partition, settings.partition, settings.seed)
    return Learner(task, data)


async def federate(
    folder: Path,
    *hostile: Callable[[str, ModelSpec], Coroutine[Any, Any, None]],
    clients: int | None = None,
    **flags: Any,
) -> Run:
    """Run the honest clients and the hostile ones to the end of the run."""
    settings = settings_of(HONEST + len(hostile) if clients is None else clients, **flags)
    async with live_server(settings, folder) as (run, address), asyncio.TaskGroup() as group:
        rounds = [group.create_task(honest_client(address, n)) for n in range(HONEST)]
        for act in hostile:
            group.create_task(act(address, run.spec))
    for counted in rounds:
        assert counted.result() == list(range(1, settings.rounds + 1))
    return run


def result_of(folder: Path) -> str:
    """Return the hash of the model that a run left behind."""
    return sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def honest_result(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("honest")
    asyncio.run(federate(folder))
    return result_of(folder)


@pytest.fixture(scope="module")
def honest_raw_result(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("honest-raw")
    asyncio.run(federate(folder, scheme="fp32"))
    return result_of(folder)


def every_round(
    attack: Attack, name: str = "mallory"
) -> Callable[[str, ModelSpec], Coroutine[Any, Any, None]]:
    """Join, and attack in every round until the run is over."""

    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.join(client=name)
            try:
                while True:
                    plan = (await client.receive("plan")).plan
                    await attack(client, plan.round)
            except FinishedError:
                return

    return act


# ---- Attacks within a round -------------------------------------------------


def report_with(**fields: Any) -> Attack:
    async def attack(client: RawClient, number: int) -> None:
        await client.report(number, **fields)

    return attack


def ranges_with(index: int, lo: float, hi: float, **fields: float) -> Attack:
    async def attack(client: RawClient, number: int) -> None:
        ranges = [pb.TensorRange(lo=-1, hi=1) for _ in client.spec.tensors]
        ranges[index] = pb.TensorRange(lo=lo, hi=hi, **fields)
        await client.report(number, ranges=ranges)

    return attack


def header_with(change: Callable[[pb.PayloadHeader], object]) -> Attack:
    async def attack(client: RawClient, number: int) -> None:
        header = await client.granted(number)
        change(header)
        await client.announce(header)

    return attack


def tensor_with(**fields: Any) -> Attack:
    def change(header: pb.PayloadHeader) -> None:
        for name, value in fields.items():
            if value is None:
                header.tensors[1].ClearField(name)
            else:
                setattr(header.tensors[1], name, value)

    return header_with(change)


def chunks_of(*pieces: Callable[[pb.PayloadHeader], tuple[int, int]]) -> Attack:
    """Announce a right update and send chunks of these offsets and lengths."""

    async def attack(client: RawClient, number: int) -> None:
        header = await client.granted(number)
        await client.announce(header)
        for piece in pieces:
            offset, length = piece(header)
            await client.chunk(number, offset, bytes(length))

    return attack


async def update_without_a_report(client: RawClient, number: int) -> None:
    await client.announce(client.header(number, (3,) * len(client.spec.tensors)))


async def chunk_without_a_report(client: RawClient, number: int) -> None:
    await client.chunk(number, 0, bytes(8))


async def chunk_without_a_header(client: RawClient, number: int) -> None:
    await client.granted(number)
    await client.chunk(number, 0, bytes(8))


async def report_twice(client: RawClient, number: int) -> None:
    await client.report(number)
    await client.report(number)


async def header_twice(client: RawClient, number: int) -> None:
    header = await client.granted(number)
    await client.announce(header)
    await client.announce(header)


NAN, INF = float("nan"), float("inf")

WITHIN_A_ROUND = {
    "no ranges": (report_with(ranges=[]), "WRONG_SHAPE", "0 tensors, the model 6"),
    "a range too many": (
        report_with(ranges=[pb.TensorRange(lo=0, hi=1)] * 7), "WRONG_SHAPE", "7 tensors"),
    "nan range": (ranges_with(0, NAN, 1), "NOT_FINITE", "tensor 0.weight: the range [nan, 1.0]"),
    "infinite range": (ranges_with(5, 0, INF), "NOT_FINITE", "tensor 4.bias: the range [0.0, inf]"),
    "reversed range": (ranges_with(2, 1, -1), "NOT_FINITE", "[1.0, -1.0] is reversed"),
    "widest range": (ranges_with(1, -3.4e38, 3.4e38), "NOT_FINITE", "tensor 0.bias"),
    "nan mean": (ranges_with(1, 0, 1, mean=NAN), "NOT_FINITE", "tensor 0.bias"),
    "a mean beyond the range": (
        ranges_with(1, 0, 1, mean=1.1), "OUT_OF_RANGE", "tensor 0.bias: its mean"),
    "a deviation beyond the range": (
        ranges_with(1, 0, 1, deviation=1e30), "OUT_OF_RANGE", "tensor 0.bias: its mean, dev"),
    "a magnitude beyond the range": (
        ranges_with(1, 0, 1, magnitude=2), "OUT_OF_RANGE", "tensor 0.bias: its mean, dev"),
    "a range no update may have": (ranges_with(1, 0, 1e6), "OUT_OF_RANGE", "reaches 1e+06"),
    "negative deviation": (ranges_with(1, 0, 1, deviation=-1), "NOT_FINITE", "tensor 0.bias"),
    "nan loss": (report_with(train_loss=NAN), "NOT_FINITE", "training loss"),
    "infinite loss": (report_with(train_loss=INF), "NOT_FINITE", "training loss"),
    "a loss whose sum overflows": (report_with(train_loss=1e308), "NOT_FINITE", "training loss"),
    "update without a report": (
        update_without_a_report, "OUT_OF_ORDER", "update arrived where range_report was due"),
    "chunk without a report": (
        chunk_without_a_report, "OUT_OF_ORDER", "chunk arrived where range_report was due"),
    "chunk without a header": (
        chunk_without_a_header, "OUT_OF_ORDER", "chunk arrived where update was due"),
    "report twice": (report_twice, "OUT_OF_ORDER", "range_report arrived where update was due"),
    "header twice": (header_twice, "OUT_OF_ORDER", "update arrived where chunk was due"),
    "a tensor missing": (
        header_with(lambda h: h.tensors.pop()), "WRONG_SHAPE", "5 tensors, the model 6"),
    "a tensor too many": (
        header_with(lambda h: h.tensors.append(h.tensors[0])), "WRONG_SHAPE", "7 tensors"),
    "more bits than granted": (
        header_with(lambda h: h.CopyFrom(wider(h))), "BITS_NOT_GRANTED", "granted were (3, 3,"),
    "raw where bits were granted": (
        header_with(lambda h: h.CopyFrom(raw(h))), "BITS_NOT_GRANTED", "granted were (3, 3,"),
    "raw with the granted bits": (tensor_with(codec=pb.CODEC_RAW), "WRONG_SHAPE", "codec 1"),
    "an unknown codec": (tensor_with(codec=77), "WRONG_SHAPE", "codec 77 with 3 bits is unknown"),
    "no codec": (tensor_with(codec=None), "WRONG_SHAPE", "codec 0 with 3 bits is unknown"),
    "no bits": (tensor_with(bits=0), "WRONG_SHAPE", "0 bits"),
    "17 bits": (tensor_with(bits=17), "WRONG_SHAPE", "17 bits"),
    "no range": (tensor_with(lo=None), "WRONG_SHAPE", "tensor 0.bias: its range is missing"),
    "nan header": (tensor_with(lo=NAN), "NOT_FINITE", "tensor 0.bias: the range [nan, 0.5]"),
    "infinite header": (tensor_with(hi=INF), "NOT_FINITE", "tensor 0.bias: the range [-0.5, inf]"),
    "reversed header": (tensor_with(lo=2), "NOT_FINITE", "[2.0, 0.5] is reversed"),
    "too large values": (tensor_with(hi=1e6), "OUT_OF_RANGE", "reaches 1e+06"),
    "code bytes that lie low": (
        header_with(lambda h: setattr(h, "code_bytes", 1)), "WRONG_SIZE", "announces 1 code bytes"),
    "code bytes that lie high": (
        header_with(lambda h: setattr(h, "code_bytes", 2**63)), "WRONG_SIZE", "announces 92233"),
    "an oversized chunk": (
        chunks_of(lambda h: (0, h.code_bytes + 1)), "WRONG_SIZE", "does not fit"),
    "a chunk beyond the end": (
        chunks_of(lambda h: (0, group_bytes(h)), lambda h: (group_bytes(h), h.code_bytes)),
        "WRONG_SIZE", "does not fit"),
    "an empty chunk": (chunks_of(lambda h: (0, 0)), "WRONG_SIZE", "0 bytes"),
    "a chunk too early": (chunks_of(lambda h: (3, 3)), "OUT_OF_ORDER", "byte 0 is next"),
    "a chunk twice": (
        chunks_of(lambda h: (0, 300), lambda h: (0, 300)), "OUT_OF_ORDER", "byte 300 is next"),
    "a chunk of far away": (
        chunks_of(lambda h: (0, 300), lambda h: (2**63, 3)), "OUT_OF_ORDER", "byte 300 is next"),
    "a crowd of chunks": (
        chunks_of(*((lambda h, n=n: (3 * n, 3)) for n in range(81))),
        "WRONG_SIZE", "more than 80 chunks of an update; send larger ones"),
    "a group split": (chunks_of(lambda h: (0, 4)), "WRONG_SIZE", "splits a group"),
    "a group split later": (
        chunks_of(lambda h: (0, 300), lambda h: (300, 301)), "WRONG_SIZE", "splits a group"),
}  # fmt: skip


def wider(header: pb.PayloadHeader) -> pb.PayloadHeader:
    """Return the header of the same update at 16 bits, consistent in itself."""
    spec = load_spec()
    sizes = [2 * elements for elements in spec.elements]
    other = pb.PayloadHeader(round=header.round, code_bytes=sum(sizes))
    for _ in sizes:
        other.tensors.add(codec=pb.CODEC_UNIFORM, bits=16, lo=-1, hi=1)
    return other


def raw(header: pb.PayloadHeader) -> pb.PayloadHeader:
    """Return the header of the same update as raw float32, consistent in itself."""
    other = pb.PayloadHeader(round=header.round, code_bytes=4 * load_spec().parameters)
    for _ in header.tensors:
        other.tensors.add(codec=pb.CODEC_RAW, bits=32)
    return other


def load_spec() -> ModelSpec:
    return model.spec_of(load_task("digits", None).model())


def test_who_breaks_the_protocol_is_told_why_and_does_not_count(
    tmp_path: Path, honest_result: str
) -> None:
    """All of them at once, in every round."""
    told: dict[str, list[pb.Refusal]] = {name: [] for name in WITHIN_A_ROUND}

    def listening(name: str, attack: Attack) -> Attack:
        async def attack_and_listen(client: RawClient, number: int) -> None:
            await attack(client, number)
            told[name].append((await client.receive("refusal")).refusal)

        return attack_and_listen

    hostile = [
        every_round(listening(name, attack), f"mallory-{number}")
        for number, (name, (attack, _, _)) in enumerate(WITHIN_A_ROUND.items())
    ]
    run = asyncio.run(federate(tmp_path, *hostile))
    for name, (_, reason, sentence) in WITHIN_A_ROUND.items():
        assert [refusal.round for refusal in told[name]] == list(range(1, ROUNDS + 1)), name
        for refusal in told[name]:
            assert pb.RefusalReason.Name(refusal.reason) == f"REFUSAL_REASON_{reason}", name
            assert sentence in refusal.message, name
            assert "\n" not in refusal.message, name
    assert result_of(tmp_path) == honest_result
    counts = [(record.clients, record.left_out) for record in run.records]
    assert counts == [(HONEST, len(hostile))] * ROUNDS


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e30])
def test_a_raw_update_with_a_bad_value_does_not_count(
    value: float, tmp_path: Path, honest_raw_result: str
) -> None:
    """The bad value comes in the second chunk: what the first added is taken out again."""
    told: list[pb.Refusal] = []

    async def attack(client: RawClient, number: int) -> None:
        header = await client.granted(number)
        await client.announce(header)
        values = np.full(client.spec.parameters, 0.25, "<f4")
        values[-1] = value
        data = values.tobytes()
        await client.chunk(number, 0, data[:40_000])
        await client.chunk(number, 40_000, data[40_000:])
        told.append((await client.receive("refusal")).refusal)

    asyncio.run(federate(tmp_path, every_round(attack), scheme="fp32"))
    expected = pb.REFUSAL_REASON_OUT_OF_RANGE if value == 1e30 else pb.REFUSAL_REASON_NOT_FINITE
    assert [refusal.reason for refusal in told] == [expected] * ROUNDS
    assert result_of(tmp_path) == honest_raw_result


# ---- Attacks that end a stream ----------------------------------------------


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

    asyncio.run(federate(tmp_path, act, rounds=40, network__round_deadline_s=2.0))
    assert rounds
    assert rounds == list(range(rounds[0], 41))


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


# ---- Joining ----------------------------------------------------------------

OTHER = ModelSpec((TensorSpec("0.weight", (128, 64)), TensorSpec("0.bias", (129,))))
MANY = ModelSpec(tuple(TensorSpec(f"t{n}", (1,)) for n in range(100_001)))
DIMENSIONS = pb.ModelSignature(
    tensors=[pb.TensorSpec(name="deep", shape=[2**63] * 100_000, dtype=pb.DATA_TYPE_FLOAT32)]
)
NO_TYPE = pb.ModelSignature(tensors=[pb.TensorSpec(name="0.weight", shape=[128, 64])])
LONG_NAME = ModelSpec((TensorSpec("\x1b[31m" + "long" * 100_000, (1,)),))


def classes(*names: str) -> pb.ModelSignature:
    return pb.ModelSignature(tensors=model.to_message(load_spec()).tensors, classes=names)


JOINS: dict[str, tuple[dict[str, Any], str, str]] = {
    "another version": (
        {"protocol_version": 999}, "FAILED_PRECONDITION",
        f"the server speaks protocol {PROTOCOL_VERSION}, the client 999; install the same fedaq"),
    "no version": ({"protocol_version": 0}, "FAILED_PRECONDITION", "the client 0;"),
    "no name": ({"client": ""}, "INVALID_ARGUMENT", "a client name has 1 to 64"),
    "a long name": ({"client": "x" * 65}, "INVALID_ARGUMENT", "a client name has 1 to 64"),
    "a long name in bytes": ({"client": "ä" * 33}, "INVALID_ARGUMENT", "1 to 64"),
    "a path": ({"client": "../../etc/x"}, "INVALID_ARGUMENT", "no spaces or slashes"),
    "a control character": ({"client": "a\x1b[2J"}, "INVALID_ARGUMENT", "printable"),
    "no examples": ({"examples": 0}, "INVALID_ARGUMENT", "mallory has 0 training examples"),
    "too many examples": ({"examples": 2**64 - 1}, "INVALID_ARGUMENT", "training examples"),
    "a long digest": ({"holds": bytes(9)}, "INVALID_ARGUMENT", "a digest of 9 bytes; it has 8"),
    "a free radio": ({"radio": pb.Radio(uplink_j_per_bit=0)}, "INVALID_ARGUMENT", "radio"),
    "a nan radio": (
        {"radio": pb.Radio(uplink_j_per_bit=NAN, downlink_j_per_bit=1e-7)}, "INVALID_ARGUMENT",
        "radio"),
    "no model": ({"model": None}, "FAILED_PRECONDITION", "0.weight 128x64 here and missing there"),
    "another model": (
        {"model": model.to_message(OTHER)}, "FAILED_PRECONDITION",
        "tensor 2 is 0.bias 128 here and 0.bias 129 there"),
    "a model without a type": ({"model": NO_TYPE}, "INVALID_ARGUMENT", "'0.weight' is not float32"),
    "a huge model": ({"model": model.to_message(MANY)}, "INVALID_ARGUMENT", "more than 100000"),
    "many classes": ({"model": classes(*("cat",) * 100_001)}, "INVALID_ARGUMENT",
                     "it lists more than 100000 classes"),
    "long classes": ({"model": classes("c" * 600_000, "d" * 600_000)}, "INVALID_ARGUMENT",
                     "the names of its classes take more than 1048576 bytes"),
    "classes where none are stated": (
        {"model": classes("cat", "\x1b[31mdog")}, "FAILED_PRECONDITION",
        "classes missing here: ?[31mdog, cat (server here, client there)"),
    "a deep tensor": ({"model": DIMENSIONS}, "INVALID_ARGUMENT", "'deep' has more than"),
    "a long tensor name": (
        {"model": model.to_message(LONG_NAME)}, "FAILED_PRECONDITION", "tensor 1"),
}  # fmt: skip


def test_who_may_not_join_is_told_why(tmp_path: Path, honest_result: str) -> None:
    ends: dict[str, tuple[grpc.StatusCode, str]] = {}

    async def act(address: str, spec: ModelSpec) -> None:
        for name, (fields, _, _) in JOINS.items():
            async with raw_client(address, spec) as client:
                await client.join(**fields)
                ends[name] = await client.status()

    asyncio.run(federate(tmp_path, act, clients=HONEST))
    for name, (_, code, sentence) in JOINS.items():
        assert ends[name][0].name == code, name
        assert sentence in ends[name][1], name
        assert ends[name][1].isprintable(), name
    assert result_of(tmp_path) == honest_result


@pytest.mark.parametrize(
    "first",
    [
        pb.ClientMessage(),
        pb.ClientMessage(heartbeat=pb.Heartbeat()),
        pb.ClientMessage(leave=pb.Leave()),
        pb.ClientMessage(chunk=pb.Chunk(round=1)),
        b"\xff",
    ],
    ids=["nothing", "heartbeat", "leave", "chunk", "garbage"],
)
def test_a_stream_begins_with_a_join(first: pb.ClientMessage | bytes, tmp_path: Path) -> None:
    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.send(first)
            code, details = await client.status()
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert "must be a join" in details or "not a fedaq.v1.ClientMessage" in details

    asyncio.run(federate(tmp_path, act, clients=HONEST))


def test_a_name_is_given_once(tmp_path: Path) -> None:
    """Two of one name at the same moment: one is welcome, and its stream stays as it is."""
    ends: list[str] = []

    async def rival(client: RawClient) -> None:
        await client.join(client="twin")
        try:
            await client.receive("welcome")
        except EndedError:
            code, details = await client.status()
            assert code == grpc.StatusCode.ALREADY_EXISTS
            assert details == (
                "a client named twin is connected already; give each client its own --name"
            )
            ends.append("refused")
            return
        try:
            while True:
                number = (await client.receive("plan")).plan.round
                await client.report(number, ranges=[])
                await client.receive("refusal")
        except FinishedError:
            ends.append("finished")

    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as one, raw_client(address, spec) as two:
            await asyncio.gather(rival(one), rival(two))

    asyncio.run(federate(tmp_path, act))
    assert ends == ["refused", "finished"]


# ---- Differences ------------------------------------------------------------


def test_who_missed_a_difference_gets_it_though_nobody_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What clients hold has moved on when the next round begins, however long that takes."""
    advance = History.advance

    def slowly(*arguments: Any) -> None:
        time.sleep(0.5)
        advance(*arguments)

    monkeypatch.setattr(History, "advance", slowly)
    settings = settings_of(1, rounds=3, scheme="fedaq")
    first = Learner(load_task("digits", None), [], settings.seed).held
    payloads: list[int] = []

    async def act() -> Run:
        async with (
            live_server(settings, tmp_path) as (run, address),
            raw_client(address, run.spec, first) as client,
        ):
            await client.join(holds=model.digest(first))
            for number in (1, 2, 3):
                payloads.append((await client.receive("plan")).plan.payloads)
                if number == 2:
                    await client.report(number, ranges=[], holds=b"")
                    await client.receive("refusal")
                    continue
                header = await client.granted(number)
                await client.announce(header)
                await client.chunk(number, 0, bytes(header.code_bytes))
                await client.receive("receipt")
        return run

    run = asyncio.run(act())
    assert payloads == [1, 1, 2]
    assert [record.clients for record in run.records] == [1, 0, 1]
    assert run.records[2].catch_up_payload_bytes > 0


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


# ---- Whatever bytes a client sends ------------------------------------------


@dataclass
class Mutilated:
    """A client's link in memory that spoils one of its messages on the way."""

    to_server: "asyncio.Queue[bytes | None]"
    to_client: "asyncio.Queue[bytes]"
    number: int
    spoil: Callable[[bytes], list[bytes]]
    sent: int = 0

    async def send(self, frame: bytes) -> None:
        for other in self.spoil(frame) if self.sent == self.number else [frame]:
            await self.to_server.put(other)
        self.sent += 1

    async def receive(self) -> pb.ServerMessage | chunks.Chunk:
        return chunks.parse(await self.to_client.get(), pb.ServerMessage)

    async def read(self) -> pb.ClientMessage | chunks.Chunk | None:
        frame = await self.to_server.get()
        try:
            return None if frame is None else chunks.parse(frame, pb.ClientMessage)
        except DecodeError:
            raise JoinRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "no message") from None

    async def write(self, frame: bytes) -> None:
        await self.to_client.put(frame)

    def received_bytes(self) -> int:
        return 0


def spoilt(how: str, place: float, piece: bytes) -> Callable[[bytes], list[bytes]]:
    """Return a way to spoil a message, at a place between its beginning (0) and its end (1)."""

    def spoil(frame: bytes) -> list[bytes]:
        at = round(place * len(frame))
        return {
            "drop": [],
            "repeat": [frame, frame],
            "cut": [frame[:at]],
            "change": [frame[:at] + piece + frame[at + len(piece) :]],
            "insert": [frame[:at] + piece + frame[at:]],
        }[how]

    return spoil


@pytest.fixture(scope="module")
def empty_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one round to which nobody brought anything."""
    folder = tmp_path_factory.mktemp("empty")

    async def attack(client: RawClient, number: int) -> None:
        await client.report(number, ranges=[])

    async def run_alone() -> None:
        async with live_server(settings_of(1, rounds=1), folder) as (run, address):
            await every_round(attack)(address, run.spec)

    asyncio.run(run_alone())
    return folder


def test_a_round_without_updates_has_no_training_loss(empty_round: Path) -> None:
    [entry] = json.loads((empty_round / "run.json").read_text(), parse_constant=no_json)["rounds"]
    assert entry["train_loss"] is None
    assert (entry["clients"], entry["uplink_payload_bytes"], entry["uplink_bits"]) == (0, 0, 0)


# Join, report, header and the chunks of a 3-bit update of digits in chunks of 2,048 bytes.
MESSAGES = 7


@given(
    number=st.integers(0, MESSAGES - 1),
    how=st.sampled_from(["drop", "repeat", "cut", "change", "insert"]),
    place=st.floats(0, 1),
    piece=st.binary(min_size=1, max_size=12),
)
@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_spoilt_message_is_refused_or_does_no_harm(
    number: int, how: str, place: float, piece: bytes, tmp_path: Path, empty_round: Path
) -> None:
    """The run ends; an update counts whole or leaves the model as it was."""
    assume(number > 0 or how != "drop")  # who does not join is not there
    flags = {
        "network__chunk_bytes": 2048,
        "network__round_deadline_s": 0.3,
        "network__join_timeout_s": 20.0,
    }
    folder = Path(mkdtemp(dir=tmp_path))
    run = Run(settings_of(1, rounds=1, **flags), Ledger(folder), lambda record: None)
    link = Mutilated(asyncio.Queue(), asyncio.Queue(), number, spoilt(how, place, piece))
    session = Session(link, "anna", learner(), None, lambda _: None)

    async def federate_in_memory() -> None:
        client = asyncio.create_task(session.participate())
        stream = asyncio.create_task(serve_client(run.admission, link))
        rounds = asyncio.create_task(run.rounds(NoWire()))
        await asyncio.wait({stream, rounds}, return_when=asyncio.FIRST_COMPLETED)
        if stream.done() and isinstance(stream.exception(), JoinRefusedError) and number == 0:
            rounds.cancel()  # nobody joined
        await asyncio.wait({rounds})
        client.cancel()
        stream.cancel()
        ends = await asyncio.gather(client, stream, rounds, return_exceptions=True)
        expected = (asyncio.CancelledError, JoinRefusedError, FedaqError, str, NoneType)
        assert all(isinstance(end, expected) for end in ends), ends

    asyncio.run(federate_in_memory())
    if run.records and run.records[0].left_out:
        assert result_of(folder) == result_of(empty_round)  # what was broadcast


def no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_the_record_stays_json(tmp_path: Path) -> None:
    """The largest loss that is accepted does not turn a sum into infinity."""

    async def attack(client: RawClient, number: int) -> None:
        await client.report(number, train_loss=3.4e38)
        header = client.header(number, tuple((await client.receive("grant")).grant.uplink_bits))
        await client.announce(header)
        await client.chunk(number, 0, bytes(header.code_bytes))
        await client.receive("receipt")

    asyncio.run(federate(tmp_path, every_round(attack)))
    json.loads((tmp_path / "run.json").read_text(), parse_constant=no_json)


def test_the_record_of_a_diverged_model_stays_json(tmp_path: Path) -> None:
    record = RoundRecord(
        round=1, test_accuracy=0.1, test_loss=NAN, train_loss=INF, uplink_bits=3.0,
        downlink_bits=3.0, uplink_payload_bytes=1, downlink_payload_bytes=1,
        catch_up_payload_bytes=0, uplink_wire_bytes=None, downlink_wire_bytes=2, energy_j=1.0,
        price=0.0, clients=1, left_out=0, seconds=1.0,
    )  # fmt: skip
    write_run(tmp_path, {}, [record])
    [entry] = json.loads((tmp_path / "run.json").read_text(), parse_constant=no_json)["rounds"]
    assert entry["test_loss"] is entry["train_loss"] is entry["uplink_wire_bytes"] is None
    assert (entry["test_accuracy"], entry["downlink_wire_bytes"]) == (0.1, 2)
