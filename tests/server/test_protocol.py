"""Clients that break the protocol within a round, with honest clients beside them.

Whatever they do, they are told why, and the rounds go on as if they were not there.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaq.codec import model
from fedaq.tasks import load_task
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.training import Learner
from fedaq_server.rounds.differences import History
from fedaq_server.run import Run
from server.attacks import (
    HONEST,
    INF,
    NAN,
    ROUNDS,
    Attack,
    every_round,
    federate,
    load_spec,
    result_of,
    settings_of,
)
from system.live import live_server
from system.raw_client import RawClient, group_bytes, raw_client

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong_unseen")


@pytest.fixture(scope="module")
def honest_raw_result(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("honest-raw")
    asyncio.run(federate(folder, scheme="fp32"))
    return result_of(folder)


def report_with(**fields: Any) -> Attack:
    async def attack(client: RawClient, number: int) -> None:
        await client.report(number, **fields)

    return attack


def validation_with(examples: int, **values: float) -> Attack:
    metrics = [pb.Metric(name=name, value=value) for name, value in values.items()]
    return report_with(validation=pb.Validation(examples=examples, metrics=metrics))


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
    "a validation on nothing": (
        validation_with(0, loss=1.0), "OUT_OF_RANGE", "on 0 examples; it needs 1 to"),
    "a validation on too much": (
        validation_with(2**41, loss=1.0), "OUT_OF_RANGE", "on 2199023255552 examples"),
    "too many metrics": (
        validation_with(1, **{f"m{number}": 1.0 for number in range(34)}), "WRONG_SIZE",
        "34 metrics; the loss and 32 others are the most"),
    "a metric of a name that cannot be": (
        validation_with(1, **{"a b": 1.0}), "OUT_OF_RANGE", "need names of their own: a letter"),
    "a metric of a long name": (
        validation_with(1, **{"x" * 41: 1.0}), "OUT_OF_RANGE", "40 characters at most"),
    "a metric twice": (
        report_with(validation=pb.Validation(
            examples=1, metrics=[pb.Metric(name="loss", value=value) for value in (1.0, 2.0)])),
        "OUT_OF_RANGE", "need names of their own"),
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
