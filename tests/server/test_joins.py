"""Who may join, and who is told why not."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedaq import PROTOCOL_VERSION
from fedaq.codec import model
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.v1 import federation_pb2 as pb
from server.attacks import HONEST, NAN, federate, load_spec, result_of
from system.raw_client import EndedError, FinishedError, RawClient, raw_client

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong_unseen")

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


def test_who_knows_plain_sgd_only_may_not_join_where_more_is_asked(tmp_path: Path) -> None:
    async def act(address: str, spec: ModelSpec) -> None:
        for software, named in (("fedaq 0.1.0", "fedaq 0.1.0"), ("", "the software")):
            async with raw_client(address, spec) as client:
                await client.join(software=software)
                code, details = await client.status()
                assert code == grpc.StatusCode.FAILED_PRECONDITION
                assert f"more than plain SGD (fedaq settings training), which {named}" in details

    asyncio.run(federate(tmp_path, act, clients=HONEST, training__proximal=0.01))


@pytest.mark.parametrize(
    ("training", "flags", "says"),
    [
        (2, {"scheme": "stc"}, "a part of each update (scheme stc), which fedaq 0.1.0"),
        (
            3,
            {"scheme": "fedaq", "privacy__epsilon": 100.0},
            "clip their updates (privacy.epsilon), which fedaq 0.1.0",
        ),
    ],
    ids=["parts of updates", "clipped updates"],
)
def test_who_does_not_know_what_is_asked_of_updates_may_not_join(
    training: int, flags: dict[str, Any], says: str, tmp_path: Path
) -> None:
    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.join(software="fedaq 0.1.0", training=training)
            code, details = await client.status()
            assert code == grpc.StatusCode.FAILED_PRECONDITION
            assert f"{says} does not do" in details

    asyncio.run(federate(tmp_path, act, clients=HONEST, **flags))


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
