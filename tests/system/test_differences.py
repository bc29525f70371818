"""Differences on real sockets: who missed models, who holds another one, who lies about it."""

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import packed_codes
from fedaq.codec import entropy, headers, model, payload
from fedaq.codec.chunks import Chunk, kind_of
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import coarser_steps, plan_payload
from fedaq.codec.quantizer import RAW_BITS, Range
from fedaq.errors import FedaqError
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.session import Progress
from fedaq_client.training import Learner
from fedaq_lab.local import federate as federate_locally
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.differences import History
from fedaq_server.run import Run
from system.commands import Commands
from system.limited_scheme import LIMIT_BYTES
from system.live import learner, live_server, settings_of, take_part
from system.raw_client import FinishedError, RawClient, raw_client

HONEST = 2
ROUNDS = 3
BITS = 3

Hostile = Callable[[str, ModelSpec], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING):
        yield
    gc.collect(1)
    errors = [r.getMessage() for r in caplog.records if r.levelno > logging.WARNING]
    assert [text for text in errors if "PollerCompletionQueue" not in text] == []


# ---- Missing rounds ----------------------------------------------------------


class CutError(Exception):
    """The stream was cut."""


class Truant:
    """A client that misses rounds at random, and may forget everything when it does.

    Attributes
    ----------
    proven : dict of int to bytes
        Digest of the model that it held at the end of each round in which it counted.
    """

    def __init__(self, number: int, parts: int, last: int) -> None:
        self.number, self.parts, self.last = number, parts, last
        self.random = Random(number)
        self.learner = self._restarted(1)
        self.proven: dict[int, bytes] = {}
        self.cuts = 0

    async def act(self, address: str) -> None:
        """Take part to the end of the run, in as many streams as it takes."""
        self._left = -1
        while True:
            try:
                await take_part(
                    address, f"truant-{self.number}", self.learner, self._prove, self._hear
                )
                return
            except CutError:
                self.cuts += 1
                if self.random.random() < 0.3:
                    # Restarted from scratch, half of them with the model of another seed.
                    self.learner = self._restarted(self.random.choice([1, 2]))
            except FedaqError:
                await asyncio.sleep(0.01)  # the server has not noticed yet that it went

    def _restarted(self, seed: int) -> Learner:
        # Slow enough for those that were cut to be back soon.
        return learner(self.number, self.parts, seed, pause_s=0.05)

    def _prove(self, progress: Progress) -> None:
        self.proven[progress.round] = model.digest(self.learner.held)

    def _hear(self, message: pb.ServerMessage | Chunk) -> None:
        """Cut the stream in 30 % of the rounds: before, amid or after the model."""
        if not isinstance(message, Chunk) and kind_of(message) == "plan":
            misses = self.random.random() < 0.3 and message.plan.round < self.last
            self._left = self.random.randrange(4) if misses else -1
        self._left -= 1
        if self._left == -1:
            raise CutError


def test_who_misses_rounds_is_brought_to_the_right_model_for_less_than_a_fresh_one(
    tmp_path: Path,
) -> None:
    rounds, parts = 14, 5
    truants = [Truant(number, parts, rounds - 3) for number in range(parts)]
    digests: dict[int, bytes] = {}

    def note(run: Run, record: RoundRecord) -> None:
        assert run.federation.history is not None
        digests[record.round] = run.federation.history.digest
        if record.round == 3:
            begun.set()

    begun = asyncio.Event()

    async def late(truant: Truant, address: str) -> None:
        await begun.wait()
        await truant.act(address)

    async def federate() -> Run:
        settings = settings_of(parts - 1, rounds=rounds, network__return_wait_s=0.0)
        async with (
            live_server(settings, tmp_path, note) as (run, address),
            asyncio.TaskGroup() as group,
        ):
            for truant in truants[1:]:
                group.create_task(truant.act(address))
            group.create_task(late(truants[0], address))
        return run

    run = asyncio.run(federate())
    history = run.federation.history
    assert history is not None
    assert len(run.records) == rounds
    assert run.records[-1].test_accuracy > 0.9
    for truant in truants:
        # It held what the server believes it to hold whenever its update counted.
        assert truant.proven
        assert truant.proven == {number: digests[number] for number in truant.proven}
        if rounds in truant.proven:
            assert truant.learner.held.tobytes() == history.held.tobytes()
    assert sum(rounds in truant.proven for truant in truants) >= 1
    assert sum(truant.cuts for truant in truants) > parts
    assert sum(record.left_out for record in run.records) > parts
    assert sum(record.catch_up_payload_bytes for record in run.records) > 0
    took_part = sum(record.clients + record.left_out for record in run.records)
    sent = sum(record.downlink_payload_bytes for record in run.records)
    assert sent < 0.5 * took_part * history.whole_bytes


# ---- Another model -----------------------------------------------------------


class Witness:
    """Notes what a client is sent and told."""

    def __init__(self) -> None:
        self.models: list[pb.PayloadHeader] = []
        self.refusals: list[pb.Refusal] = []

    def hear(self, message: pb.ServerMessage | Chunk) -> None:
        if isinstance(message, Chunk):
            return
        if kind_of(message) == "model":
            self.models.append(message.model)
        if kind_of(message) == "refusal":
            self.refusals.append(message.refusal)


async def federate(
    folder: Path, *hostile: Hostile, honest: int = HONEST, **flags: Any
) -> tuple[Run, list[list[int]]]:
    """Run honest clients and hostile ones to the end; return the rounds in which each counted."""
    # What follows from repeated misbehaviour is tested in tests/server/test_conduct.py.
    lenient = {"limits__strikes": 1000, "limits__norm_factor": 0, "limits__examples_factor": 1e6}
    settings = settings_of(honest + len(hostile), **{"rounds": ROUNDS, **lenient, **flags})
    counted: list[list[int]] = [[] for _ in range(honest)]

    def count(number: int) -> Callable[[Progress], None]:
        return lambda progress: counted[number].append(progress.round)

    async with (
        live_server(settings, folder, lambda run, record: None) as (run, address),
        asyncio.TaskGroup() as group,
    ):
        for number in range(honest):
            part = take_part(address, f"honest-{number}", learner(number, honest), count(number))
            group.create_task(part)
        for act in hostile:
            group.create_task(act(address, run.spec))
    return run, counted


def test_a_client_with_another_model_is_refused_once_and_sent_the_whole(tmp_path: Path) -> None:
    witness, counted = Witness(), list[int]()
    part = learner(0, 2)

    def spoil_once(progress: Progress) -> None:
        counted.append(progress.round)
        if progress.round == 2:
            part.held[17] += 1.0

    async def spoilt(address: str, spec: ModelSpec) -> None:
        await take_part(address, "spoilt", part, spoil_once, witness.hear)

    run, [honest] = asyncio.run(federate(tmp_path, spoilt, honest=1, rounds=6))
    assert honest == [1, 2, 3, 4, 5, 6]
    assert counted == [1, 2, 4, 5, 6]
    [refusal] = witness.refusals
    assert (refusal.round, refusal.reason) == (3, pb.REFUSAL_REASON_OTHER_MODEL)
    assert "what you lack comes with the next round" in refusal.message
    by_round = {header.round: header for header in witness.models}
    assert len(by_round) == len(witness.models) == 6
    assert [number for number, header in by_round.items() if not header.base] == [4]
    assert {tensor.codec for tensor in by_round[4].tensors} == {pb.CODEC_RAW}
    history = run.federation.history
    assert history is not None
    assert part.held.tobytes() == history.held.tobytes()
    whole = [r.round for r in run.records if r.catch_up_payload_bytes == history.whole_bytes]
    assert whole == [4]


def test_who_joins_with_another_model_is_sent_the_whole_at_once(tmp_path: Path) -> None:
    witness, counted = Witness(), list[int]()
    part = learner(0, 2, seed=2)

    async def other(address: str, spec: ModelSpec) -> None:
        await take_part(
            address, "other", part, lambda progress: counted.append(progress.round), witness.hear
        )

    run, _ = asyncio.run(federate(tmp_path, other, honest=1))
    assert counted == [1, 2, 3]
    assert witness.refusals == []
    assert [bool(header.base) for header in witness.models] == [False, True, True]
    assert run.federation.history is not None
    assert part.held.tobytes() == run.federation.history.held.tobytes()


@pytest.mark.parametrize(
    "budget",
    [
        {},
        {"energy__budget_j": 0.5},
        {"energy__budget_j": 0.5, "coding__entropy": False, "coding__downlink": "difference"},
    ],
    ids=["free", "budget", "packed budget"],
)
def test_a_client_alone_that_loses_its_model_is_healed(
    budget: dict[str, Any], tmp_path: Path
) -> None:
    """In the round in which the only client needs the whole, nobody is sent the difference."""
    part, counted = learner(0, 1), list[int]()

    def spoil_once(progress: Progress) -> None:
        counted.append(progress.round)
        if progress.round == 1:
            part.held[:] = 0.5

    async def spoilt(address: str, spec: ModelSpec) -> None:
        await take_part(address, "spoilt", part, spoil_once)

    run, _ = asyncio.run(federate(tmp_path, spoilt, honest=0, rounds=5, **budget))
    assert counted == [1, 3, 4, 5]
    assert run.federation.history is not None
    assert part.held.tobytes() == run.federation.history.held.tobytes()


def test_the_next_round_waits_until_the_difference_of_this_one_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all clients went, and none of them waited for it."""
    original, pauses_s = History.advance, [0.3, 0.0]

    def advance(self: History, *arguments: Any) -> None:
        time.sleep(pauses_s.pop() if pauses_s else 0)
        original(self, *arguments)

    monkeypatch.setattr(History, "advance", advance)
    part, witness, counted = learner(0, 1), Witness(), list[int]()
    cuts = [2]

    def hear(message: pb.ServerMessage | Chunk) -> None:
        witness.hear(message)
        if isinstance(message, Chunk):
            return
        if kind_of(message) == "plan" and message.plan.round in cuts:
            cuts.clear()
            raise CutError

    async def goes_and_comes(address: str, spec: ModelSpec) -> None:
        while True:
            try:
                await take_part(
                    address, "anna", part, lambda done: counted.append(done.round), hear
                )
                return
            except (CutError, FedaqError):
                await asyncio.sleep(0.01)

    run, _ = asyncio.run(federate(tmp_path, goes_and_comes, honest=0, rounds=5, base="broadcast",
                           network__return_wait_s=0.0))  # fmt: skip
    assert cuts == []
    assert counted == [1, 3, 4, 5]
    assert witness.refusals == []
    assert run.federation.history is not None
    assert part.held.tobytes() == run.federation.history.held.tobytes()


# ---- Lies --------------------------------------------------------------------

# Nothing of what honest clients are granted depends on who else is there.
STEADY: dict[str, Any] = {
    "scheme": "fixed",
    "fixed__uplink_bits": BITS,
    "fixed__downlink_bits": 6,
    "coding__entropy": True,
    "coding__downlink": "difference",
    "network__chunk_bytes": 4096,
}


def result_of(folder: Path) -> str:
    return sha256((folder / "model.safetensors").read_bytes()).hexdigest()


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
        assert steps < set(coarser_steps(float(np.float32(0.01)))[1:])
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


# ---- Both engines ------------------------------------------------------------


def test_processes_and_one_process_give_the_same_model(commands: Commands) -> None:
    settings = settings_of(2, rounds=3, scheme="fedaq")
    in_one = commands.folder / "in-one"
    in_one.mkdir()
    asyncio.run(federate_locally(Run(settings, Ledger(in_one), lambda record: None)))
    folder = commands.folder / "processes"
    ended = commands.run(
        "run", "--task", "digits", "--clients", 2, "--rounds", 3, "--scheme", "fedaq",
        "--out", folder,
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert result_of(folder) == result_of(in_one)
