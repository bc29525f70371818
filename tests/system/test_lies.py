"""Lies on real sockets: of the model that is held, of chunks, and of limits."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import packed_codes
from fedaq.codec import entropy, headers, model, payload
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import coarser_steps, plan_payload
from fedaq.codec.quantizer import RAW_BITS, Range
from fedaq.v1 import federation_pb2 as pb
from system.honest import BITS, HONEST, ROUNDS, Hostile, federate, result_of
from system.limited_scheme import LIMIT_BYTES, STEP
from system.live import learner
from system.raw_client import FinishedError, RawClient, raw_client

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong_unseen")

# Nothing of what honest clients are granted depends on who else is there.
STEADY: dict[str, Any] = {
    "scheme": "fixed",
    "fixed__uplink_bits": BITS,
    "fixed__downlink_bits": 6,
    "coding__entropy": True,
    "coding__downlink": "difference",
    "network__chunk_bytes": 4096,
}


@pytest.fixture(scope="module")
def honest_result(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("honest")
    asyncio.run(federate(folder, **STEADY))
    return result_of(folder)


def every_round(
    attack: Callable[[RawClient, int], Awaitable[object]], name: str, holds: bytes = b""
) -> Hostile:
    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.join(client=name, holds=holds)
            with suppress(FinishedError):
                while True:
                    await attack(client, (await client.receive("plan")).plan.round)

    return act


def test_who_claims_a_model_that_it_does_not_hold_harms_nobody_else(
    tmp_path: Path, honest_result: str
) -> None:
    begins_with = model.digest(learner(0, 1).held)
    claims: dict[str, Callable[[int], bytes]] = {
        "the first": lambda number: begins_with,
        "an unknown one": lambda number: b"unknown!",
        "none": lambda number: b"",
        "a long one": lambda number: bytes(10**5),
        "another each time": lambda number: bytes([number] * 8),
    }
    told: dict[str, list[tuple[int, pb.RefusalReason]]] = {name: [] for name in claims}

    def claiming(name: str) -> Callable[[RawClient, int], Awaitable[object]]:
        async def attack(client: RawClient, number: int) -> None:
            if number == 1 and name == "the first":
                # Then it is the right one still.
                await client.report(number, ranges=[])
                return
            await client.report(number, holds=claims[name](number))
            refusal = (await client.receive("refusal")).refusal
            told[name].append((refusal.round, refusal.reason))

        return attack

    hostile = [
        every_round(claiming(name), f"mallory-{i}", claims[name](0)[: model.DIGEST_BYTES])
        for i, name in enumerate(claims)
    ]
    run, counted = asyncio.run(federate(tmp_path, *hostile, **STEADY))
    assert counted == [[1, 2, 3]] * HONEST
    assert result_of(tmp_path) == honest_result
    for name, refusals in told.items():
        first = 2 if name == "the first" else 1
        too_long = name == "a long one"
        reason = pb.REFUSAL_REASON_WRONG_SIZE if too_long else pb.REFUSAL_REASON_OTHER_MODEL
        expected = [(n, reason) for n in range(first, ROUNDS + 1)]
        assert refusals == expected, name
    assert [record.clients for record in run.records] == [HONEST] * ROUNDS


# Who sends a broken chunk need not know the right model.
OPEN = {**STEADY, "coding__downlink": "model"}


@pytest.fixture(scope="module")
def honest_open_result(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("honest-open")
    asyncio.run(federate(folder, **OPEN))
    return result_of(folder)


# After the first tensor, 8,192 values in 3,072 bytes, whose codes are right, come the next two:
# 128 values in 48 bytes, and 8,192 in 3,072.
FIRST, SECOND, THIRD = 3072, 48, 3072
BLOCK = entropy.compress(np.full(4096, 0x55, np.uint8))


def chunk_with(data: bytes, code_bytes: int, coded_bytes: list[int]) -> pb.Chunk:
    return pb.Chunk(offset=FIRST, data=data, code_bytes=code_bytes, coded_bytes=coded_bytes)


BROKEN = {
    "no such kind": (
        chunk_with(bytes(SECOND) + bytes([9]) + BLOCK[1:], SECOND + THIRD, [0, len(BLOCK)]),
        "BROKEN_CODE", "tensor 2.weight: coded block"),
    "changed codes": (
        chunk_with(bytes(SECOND) + BLOCK[:9] + b"\xff\xff" + BLOCK[11:], SECOND + THIRD,
                   [0, len(BLOCK)]),
        "BROKEN_CODE", "tensor 2.weight: coded block"),
    "codes that end early": (
        chunk_with(bytes(SECOND) + BLOCK[:-1], SECOND + THIRD, [0, len(BLOCK) - 1]),
        "BROKEN_CODE", "tensor 2.weight: coded block"),
    "codes of another length": (
        chunk_with(BLOCK, SECOND, [len(BLOCK)]), "BROKEN_CODE", "tensor 0.bias: coded block"),
    "a length missing": (
        chunk_with(bytes(SECOND) + BLOCK, SECOND + THIRD, [0]), "WRONG_SHAPE",
        "1 lengths for 2 tensors"),
    "a length that lies": (
        chunk_with(bytes(SECOND) + BLOCK, SECOND + THIRD, [0, 2**32 - 1]), "WRONG_SIZE",
        "ends in the codes of tensor 2.weight"),
    "data that goes on": (
        chunk_with(bytes(SECOND) + BLOCK + b"\0", SECOND + THIRD, [0, len(BLOCK)]), "WRONG_SIZE",
        "has 1 bytes too many"),
    "more codes than are left": (
        chunk_with(BLOCK, 4095, [len(BLOCK)]), "WRONG_SIZE", "does not fit"),
    "more codes than a chunk may hold": (
        chunk_with(BLOCK, 2**32 - 1, [len(BLOCK)]), "WRONG_SIZE",
        "a chunk of 4294967295 bytes; at most 4096 are accepted"),
    "a little more codes than a chunk may hold": (
        chunk_with(BLOCK, 4097, [len(BLOCK)]), "WRONG_SIZE", "a chunk of 4097 bytes"),
}  # fmt: skip


def test_an_update_with_a_broken_chunk_leaves_no_trace(
    tmp_path: Path, honest_open_result: str
) -> None:
    """All of them at once, in every round, each after a first chunk that is right."""
    told: dict[str, list[pb.Refusal]] = {name: [] for name in BROKEN}

    def sending(name: str) -> Callable[[RawClient, int], Awaitable[object]]:
        async def attack(client: RawClient, number: int) -> None:
            header = await client.granted(number)
            assert {tensor.bits for tensor in header.tensors} == {BITS}
            await client.announce(header)
            await client.chunk(number, 0, b"\xff" * FIRST)
            chunk = pb.Chunk(round=number)
            chunk.MergeFrom(BROKEN[name][0])
            await client.send(pb.ClientMessage(chunk=chunk))
            told[name].append((await client.receive("refusal")).refusal)

        return attack

    hostile = [every_round(sending(name), f"mallory-{i}") for i, name in enumerate(BROKEN)]
    run, counted = asyncio.run(federate(tmp_path, *hostile, **OPEN))
    for name, (_, reason, sentence) in BROKEN.items():
        assert [refusal.round for refusal in told[name]] == list(range(1, ROUNDS + 1)), name
        for refusal in told[name]:
            assert pb.RefusalReason.Name(refusal.reason) == f"REFUSAL_REASON_{reason}", name
            assert sentence in refusal.message, name
    assert result_of(tmp_path) == honest_open_result
    assert counted == [[1, 2, 3]] * HONEST
    assert [(r.clients, r.left_out) for r in run.records] == [(HONEST, len(BROKEN))] * ROUNDS


def test_a_right_chunk_that_is_entropy_coded_counts(
    tmp_path: Path, honest_open_result: str
) -> None:
    async def attack(client: RawClient, number: int) -> None:
        message = await client.granted(number)
        await client.announce(message)
        header = headers.from_message(client.spec, message)
        for offset, length in header.chunks(4096):
            chunk = packed_codes.to_chunk(header, number, offset, b"\x24" * length, squeeze=True)
            assert chunk.code_bytes == length > 4 * len(chunk.data)
            await client.send(chunk.frame(pb.ClientMessage))
        await client.receive("receipt")

    run, _ = asyncio.run(federate(tmp_path, every_round(attack, "berta"), **OPEN))
    assert [record.clients for record in run.records] == [HONEST + 1] * ROUNDS
    assert result_of(tmp_path) != honest_open_result


# ---- Limits ------------------------------------------------------------------

LIMITED: dict[str, Any] = {
    "scheme": "system.limited_scheme:limited",
    "coding__entropy": True,
    "coding__downlink": "model",
}


def test_an_update_beyond_its_limit_is_refused_and_honest_clients_stay_within(
    tmp_path: Path,
) -> None:
    told: dict[float, list[pb.Refusal]] = {1.0: [], 1.5: [], 0.5: [], 2.0**13: []}
    received: dict[float, list[int]] = {0.0: [], 1.25: []}

    async def send(client: RawClient, number: int, factor: float, codes: bytes) -> None:
        """Send an update with the step times `factor`, 0 for no codes at all."""
        usual = pb.TensorRange(lo=-0.5, hi=0.5, deviation=0.2, magnitude=0.15)
        await client.report(number, ranges=[usual] * len(client.spec.tensors))
        grant = (await client.receive("grant")).grant
        assert grant.limit_bytes == LIMIT_BYTES
        steps = tuple(step * factor for step in grant.uplink_steps)
        bits = tuple(grant.uplink_bits) if factor else (0,) * len(steps)
        header = plan_payload(client.spec, bits, [Range(-0.5, 0.5)] * len(bits), steps)
        await client.announce(payload.to_message(header, number))
        for offset, length in header.chunks(4096):
            data = (codes * length)[:length]
            chunk = packed_codes.to_chunk(header, number, offset, data, squeeze=True)
            await client.send(chunk.frame(pb.ClientMessage))

    def refused(factor: float) -> Callable[[RawClient, int], Awaitable[object]]:
        async def attack(client: RawClient, number: int) -> None:
            await send(client, number, factor, np.random.default_rng(1).bytes(4096))
            told[factor].append((await client.receive("refusal")).refusal)

        return attack

    def accepted(factor: float) -> Callable[[RawClient, int], Awaitable[object]]:
        async def attack(client: RawClient, number: int) -> None:
            await send(client, number, factor, b"\0")
            received[factor].append((await client.receive("receipt")).receipt.round)

        return attack

    hostile = [every_round(refused(factor), f"more-{factor}") for factor in told]
    hostile += [every_round(accepted(factor), f"less-{factor}") for factor in received]
    run, counted = asyncio.run(federate(tmp_path, *hostile, capture=True, **LIMITED))
    for factor, refusals in told.items():
        assert [refusal.round for refusal in refusals] == [1, 2, 3]
        assert {refusal.reason for refusal in refusals} == {pb.REFUSAL_REASON_BITS_NOT_GRANTED}
        said = f"takes more than the {LIMIT_BYTES} bytes" if factor == 1 else "granted were"
        assert all(said in refusal.message for refusal in refusals)
    assert received == {0.0: [1, 2, 3], 1.25: [1, 2, 3]}
    assert counted == [[1, 2, 3]] * HONEST
    for record in run.records:
        assert record.clients == HONEST + len(received)
        assert record.uplink_payload_bytes <= record.clients * LIMIT_BYTES
    # Steps that keep the limit are wider than the granted one, and no wider than needed.
    for number in range(HONEST):
        path = tmp_path / "payloads" / f"round-0001-honest-{number}.payload"
        captured = pb.CapturedPayload.FromString(path.read_bytes())
        steps = {tensor.step for tensor in captured.header.tensors if tensor.step}
        assert len(steps) == 1
        assert steps < set(coarser_steps(float(np.float32(STEP)))[1:])
    assert run.records[0].uplink_payload_bytes > HONEST * LIMIT_BYTES // 2


def test_raw_values_cannot_be_said_to_be_coded(tmp_path: Path) -> None:
    told: list[pb.Refusal] = []

    async def attack(client: RawClient, number: int) -> None:
        header = await client.granted(number)
        assert {tensor.bits for tensor in header.tensors} == {RAW_BITS}
        await client.announce(header)
        chunk = pb.Chunk(round=number, data=BLOCK, code_bytes=4096, coded_bytes=[len(BLOCK)])
        await client.send(pb.ClientMessage(chunk=chunk))
        told.append((await client.receive("refusal")).refusal)

    flags: dict[str, Any] = {"scheme": "fp32", "coding__entropy": True}
    _, counted = asyncio.run(federate(tmp_path, every_round(attack, "mallory"), **flags))
    assert [refusal.reason for refusal in told] == [pb.REFUSAL_REASON_BROKEN_CODE] * ROUNDS
    assert counted == [[1, 2, 3]] * HONEST
