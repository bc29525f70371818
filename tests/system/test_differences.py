"""Differences on real sockets: who missed models, and who holds another one."""

import asyncio
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fedaq.codec import model
from fedaq.codec.chunks import Chunk, kind_of
from fedaq.codec.model import ModelSpec
from fedaq.errors import FedaqError
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.events import Sent
from fedaq_client.training import Learner
from fedaq_lab.local import federate as federate_locally
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.differences import History
from fedaq_server.run import Run
from system.commands import Commands
from system.honest import federate, result_of
from system.live import learner, live_server, settings_of, take_part

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong_unseen")

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

    def _prove(self, progress: Sent) -> None:
        self.proven[progress.round] = model.digest(self.learner.held, self.learner.past.noted)

    def _hear(self, message: pb.ServerMessage | Chunk) -> None:
        """Cut the stream in 30 % of the rounds: before, amid or after the model."""
        if not isinstance(message, Chunk) and kind_of(message) == "plan":
            misses = self.random.random() < 0.3 and message.plan.round < self.last
            self._left = self.random.randrange(4) if misses else -1
        self._left -= 1
        if self._left == -1:
            raise CutError


@pytest.mark.parametrize(
    "flags",
    [{}, {"scheme": "topk", "topk__fraction": "1/10"}, {"scheme": "stc", "stc__fraction": "1/10"}],
    ids=["fedaq", "topk", "stc"],
)
def test_who_misses_rounds_is_brought_to_the_right_model_for_less_than_a_fresh_one(
    flags: dict[str, Any], tmp_path: Path
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
        settings = settings_of(parts - 1, rounds=rounds, network__return_wait_s=0.0, **flags)
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


def test_a_client_with_another_model_is_refused_once_and_sent_the_whole(tmp_path: Path) -> None:
    witness, counted = Witness(), list[int]()
    part = learner(0, 2)

    def spoil_once(progress: Sent) -> None:
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
    least = 4 * run.spec.parameters
    whole = [
        record.round
        for record in run.records
        if least < record.catch_up_payload_bytes <= history.whole_bytes
    ]
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

    def spoil_once(progress: Sent) -> None:
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


# ---- Both engines ------------------------------------------------------------


# Of `fedaq`, three clients, with the records of the rounds: tests/lab/test_compare.py.
@pytest.mark.parametrize(
    "scheme", ["stc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fedaq", "topk"))]
)
def test_processes_and_one_process_give_the_same_model(scheme: str, commands: Commands) -> None:
    settings = settings_of(2, rounds=3, scheme=scheme)
    in_one = commands.folder / "in-one"
    in_one.mkdir()
    asyncio.run(federate_locally(Run(settings, Ledger(in_one), lambda record: None)))
    folder = commands.folder / "processes"
    ended = commands.run(
        "run", "--task", "digits", "--clients", 2, "--rounds", 3, "--scheme", scheme,
        "--out", folder,
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert result_of(folder) == result_of(in_one)
