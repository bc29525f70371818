"""What follows from misbehaviour: strikes, limits to rates, norms and weights."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

import packed_codes
from fedaq.codec import payload
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload, step_code
from fedaq.codec.quantizer import Floats, Range
from fedaq.errors import ProtocolError, UserError
from fedaq.settings import LimitsSettings
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.training import Learner
from fedaq_server.conduct import Conduct
from fedaq_server.rounds import exchange
from fedaq_server.run import Run
from fedaq_server.transport import rate_limit
from fedaq_server.transport.client import Client
from fedaq_server.transport.faults import TrainingFailedError, is_fault
from fedaq_server.transport.rate_limit import Bucket
from server.learners import federate_learners
from system.live import learner, live_server, settings_of, take_part
from system.raw_client import EndedError, FinishedError, RawClient, raw_client

HONEST = 3
Act = Callable[[RawClient], Awaitable[None]]


def federate(folder: Path, act: Act | None, *, examples: int = 500, **flags: Any) -> Run:
    """Run honest clients and one that acts to the end of the run."""
    common = {
        "scheme": "fixed", "fixed__uplink_bits": 3, "fixed__downlink_bits": 6, "rounds": 3,
        "network__return_wait_s": 0.5,
    }  # fmt: skip
    settings = settings_of(HONEST + (act is not None), **{**common, **flags})

    async def mallory(address: str, spec: ModelSpec) -> None:
        assert act is not None
        async with raw_client(address, spec) as client:
            await client.join(examples=examples)
            await act(client)

    async def live() -> Run:
        async with (
            live_server(settings, folder, lambda run, record: None) as (run, address),
            asyncio.TaskGroup() as group,
        ):
            if act is not None:
                group.create_task(mallory(address, run.spec))
            for number in range(HONEST):
                part = learner(number, HONEST)
                group.create_task(take_part(address, f"honest-{number}", part))
        return run

    return asyncio.run(live())


def result_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def honest_result(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("honest")
    federate(folder, None)
    return result_of(folder)


# ---- Strikes ----------------------------------------------------------------


async def lies_in_every_round(client: RawClient) -> None:
    while True:
        await client.report((await client.receive("plan")).plan.round, ranges=[])


def test_who_is_refused_three_times_is_shut_out_and_may_not_come_back(
    tmp_path: Path, honest_result: bytes
) -> None:
    """The honest clients get what they get alone, and it is in the record."""
    ends: list[tuple[grpc.StatusCode, str]] = []

    async def act(client: RawClient) -> None:
        with pytest.raises(EndedError):
            await lies_in_every_round(client)
        ends.append(await client.status())
        async with raw_client(client.address, client.spec) as again:
            await again.join(examples=500)
            ends.append(await again.status())
        with pytest.raises(UserError, match="refused this client: mallory is shut out"):
            await take_part(client.address, "mallory", learner(0, HONEST))

    run = federate(tmp_path, act, rounds=4, network__heartbeat_interval_s=1.0)
    sentence = (
        "shut out of this run after 3 refusals; the last, in round 3: "
        "the range report has 0 tensors, the model 6"
    )
    assert ends == [
        (grpc.StatusCode.PERMISSION_DENIED, sentence),
        (grpc.StatusCode.PERMISSION_DENIED, f"mallory is {sentence}"),
    ]
    assert [(r.clients, r.left_out) for r in run.records] == [(3, 1)] * 3 + [(3, 0)]
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["shut_out"] == [{"name": "mallory", "round": 3, "reason": sentence}]


def test_whose_training_fails_is_left_out_but_not_shut_out(tmp_path: Path) -> None:
    rounds: list[int] = []

    async def act(client: RawClient) -> None:
        try:
            while True:
                rounds.append((await client.receive("plan")).plan.round)
                nothing = pb.TensorRange(lo=np.nan, hi=np.nan)
                ranges = [nothing] * len(client.spec.tensors)
                await client.report(rounds[-1], ranges=ranges, train_loss=np.nan)
        except FinishedError:
            return

    run = federate(tmp_path, act, limits__strikes=1)
    assert rounds == [1, 2, 3]
    assert not run.conduct.strikes


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (pb.REFUSAL_REASON_DEADLINE, False),
        (pb.REFUSAL_REASON_STALE_ROUND, False),
        (pb.REFUSAL_REASON_OTHER_MODEL, False),
        (pb.REFUSAL_REASON_NORM, True),
        (pb.REFUSAL_REASON_NOT_FINITE, True),
        (pb.REFUSAL_REASON_WRONG_SIZE, True),
    ],
)
def test_only_faults_count(reason: "pb.RefusalReason", fault: bool) -> None:
    assert is_fault(ProtocolError(reason, "for a reason")) is fault


def test_failed_training_is_no_fault() -> None:
    assert not is_fault(TrainingFailedError(pb.REFUSAL_REASON_NOT_FINITE, "nan"))


def test_strikes_are_counted_by_name_and_told_once() -> None:
    conduct = Conduct(LimitsSettings(strikes=2))
    assert conduct.strike("a", 1, "x") is None
    assert conduct.strike("b", 1, "x") is None
    shut_out = conduct.strike("a", 5, "y")
    assert shut_out is not None
    assert (shut_out.name, shut_out.round) == ("a", 5)
    assert conduct.strike("a", 6, "z") is None
    assert list(conduct.shut_out) == ["a"]


def test_a_resumed_run_remembers_all_of_it() -> None:
    limits = LimitsSettings(strikes=2)
    conduct = Conduct(limits)
    conduct.learn_norms([1.0, 2.0, 3.0])
    for name in "aab":
        conduct.strike(name, 4, "x")
    assert Conduct.restored(limits, json.loads(json.dumps(conduct.state()))) == conduct


# ---- Rates ------------------------------------------------------------------


def test_a_bucket_is_refilled_up_to_its_capacity() -> None:
    tokens = Bucket(10, 2)
    assert tokens.take(10, 100.0)
    assert not tokens.take(1, 100.4)
    assert tokens.take(1, 100.5)
    assert tokens.take(10, 200.0)
    assert not tokens.take(1, 200.0)


FLOODS = {
    "heartbeats": pb.ClientMessage(heartbeat=pb.Heartbeat()),
    "empty messages": pb.ClientMessage(),
    "rounds to come": pb.ClientMessage(chunk=pb.Chunk(round=2**31)),
}


async def send_and_wait(client: RawClient, messages: Sequence[pb.ClientMessage | bytes]) -> None:
    """Send messages; stay until the stream ends, or a while: gRPC may hide an end amid a write."""
    for message in messages:
        await client.send(message)
    end = asyncio.create_task(client.status())
    await asyncio.wait({end}, timeout=3)
    end.cancel()


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_stream_with_a_reason(
    name: str, tmp_path: Path, honest_result: bytes, caplog: pytest.LogCaptureFixture
) -> None:

    async def act(client: RawClient) -> None:
        await client.receive("plan")
        await send_and_wait(client, [FLOODS[name]] * 1200)

    run = federate(tmp_path, act)
    assert "more than 20 messages a second that no round asked for" in caplog.text
    assert run.conduct.strikes == {"mallory": 1}
    assert result_of(tmp_path) == honest_result


def test_large_messages_count_as_many(tmp_path: Path) -> None:
    large = pb.ClientMessage(leave=pb.Leave(reason="x" * 2**20)).SerializeToString()
    # The tag of a field that nobody knows, in place of that of `leave`.
    padding = bytes([15 << 3 | 2]) + large[1:]

    async def act(client: RawClient) -> None:
        await client.receive("plan")
        await send_and_wait(client, [padding] * 4)

    run = federate(tmp_path, act)
    assert run.conduct.strikes == {"mallory": 1}


def test_a_storm_of_joins_on_a_stream_shuts_its_client_out(tmp_path: Path) -> None:
    ends = []

    async def act(client: RawClient) -> None:
        await client.receive("plan")
        for _ in range(3):
            await client.join(client="someone-else")
        ends.append(await client.status())

    run = federate(tmp_path, act)
    assert ends[0][0] is grpc.StatusCode.PERMISSION_DENIED
    assert ends[0][1].endswith("you have joined already")
    assert list(run.conduct.shut_out) == ["mallory"]


def test_a_storm_of_refused_joins_is_not_listened_to(
    tmp_path: Path, honest_result: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "CALLS", 5)
    ends = []

    async def act(client: RawClient) -> None:
        await client.receive("plan")  # the honest clients, of the same address, are there
        for _ in range(8):
            async with raw_client(client.address, client.spec) as other:
                await other.join(client="")
                ends.append((await other.status())[0].name)

    federate(tmp_path, act)
    assert ends[:5] == ["INVALID_ARGUMENT"] * 5
    assert "RESOURCE_EXHAUSTED" in ends[5:]
    assert result_of(tmp_path) == honest_result


def test_addresses_are_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "ADDRESSES", 3)
    monkeypatch.setattr(rate_limit, "CALLS", 1)
    refused = rate_limit.AddressCounts()
    for address in "abcd":
        refused.count(address)
    assert [refused.are_too_many(address) for address in "abcde"] == [
        False, True, True, True, False
    ]  # fmt: skip


def test_a_late_client_may_send_the_rest_of_its_update() -> None:
    """What is left of a round that is over is not held against it."""
    client = Client("a", 1, None, None)  # type: ignore[arg-type]
    message = pb.ClientMessage(chunk=pb.Chunk(round=1))
    assert not client.uses_credit(message)
    client.round = 1
    client.give_credit(10)
    assert [client.uses_credit(message) for _ in range(7)] == [True] * 7
    client.round = 2
    client.give_credit(10)
    assert [client.uses_credit(message) for _ in range(14)] == [True] * 13 + [False]
    client.give_credit(10)
    assert not client.uses_credit(pb.ClientMessage(heartbeat=pb.Heartbeat()))
    assert not client.uses_credit(pb.ClientMessage(chunk=pb.Chunk(round=3)))


# ---- Weights ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("examples", "weights"),
    [
        ((300, 400, 2**40), [300, 400, 8000]),
        ((300, 2**40), [300, 6000]),
        ((1, 20, 15, 9), [1, 20, 15, 9]),
    ],
)
def test_a_claim_is_limited_by_what_others_hold(
    examples: tuple[int, ...], weights: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Who runs the server is told once."""
    conduct = Conduct(LimitsSettings(examples_factor=20))
    claims = {f"c{number}": count for number, count in enumerate(examples)}
    for _ in range(2):
        assert list(conduct.weights(claims).values()) == weights
    assert caplog.text.count("limits.examples_factor") == (max(examples) > 20 * weights[0])


def test_whoever_claims_the_most_does_not_own_the_mean(tmp_path: Path) -> None:
    """One of four clients moves the model by a quarter of its update of ones."""

    async def act(client: RawClient) -> None:
        flat = np.ones(client.spec.parameters, np.float32)
        await send_update(client, (await client.receive("plan")).plan.round, flat)
        await client.receive("receipt")

    run = federate(
        tmp_path, act, scheme="fp32", rounds=1, examples=2**40, limits__examples_factor=1
    )
    initial = learner(0, HONEST).held
    moved = run.federation.model - initial
    assert abs(float(moved.mean()) - 0.25) < 0.05


# ---- Norms ------------------------------------------------------------------


def test_the_limit_follows_the_medians_of_recent_rounds() -> None:
    conduct = Conduct(LimitsSettings(norm_factor=10))
    assert conduct.norm_limit() == inf
    conduct.learn_norms([1.0, 2.0, 1e9])
    assert conduct.norm_limit() == 20
    conduct.learn_norms([1e9, 1e9])  # too few to tell who is right
    assert conduct.norm_limit() == 20
    for _ in range(5):
        conduct.learn_norms([0.5, 0.5, 0.5])
    assert conduct.norm_limit() == 5


def test_updates_of_zeros_set_no_limit() -> None:
    conduct = Conduct(LimitsSettings())
    conduct.learn_norms([0.0, 0.0, 0.0])
    assert conduct.norm_limit() == inf


def test_without_a_factor_there_is_no_rule() -> None:
    conduct = Conduct(LimitsSettings(norm_factor=0))
    conduct.learn_norms([1.0, 1.0, 1.0])
    assert conduct.norm_limit() == inf


async def send_update(client: RawClient, number: int, flat: Floats) -> None:
    """Send any values raw; the round's scheme is fp32."""
    ranges = [Range(float(v.min()), float(v.max())) for v in client.spec.split(flat)]
    spreads = [pb.TensorRange(lo=r.lo, hi=r.hi, mean=r.lo) for r in ranges]
    await client.report(number, ranges=spreads)
    await client.receive("grant")
    header = payload.plan_payload(client.spec, (32,) * len(ranges), ranges)
    await client.announce(payload.to_message(header, number))
    for offset, length in header.chunks(2**16):
        codes = packed_codes.encode_chunk(header, flat.__getitem__, (), offset, length)
        chunk = packed_codes.to_chunk(header, number, offset, codes, squeeze=False)
        await client.send(chunk.frame(pb.ClientMessage))


def test_an_update_far_longer_than_those_before_is_refused(tmp_path: Path) -> None:
    """It has arrived whole by then, and is taken out of the sum again."""
    told: list[str] = []

    async def act(client: RawClient) -> None:
        flat = np.full(client.spec.parameters, 0.001, np.float32)
        try:
            while True:
                number = (await client.receive("plan")).plan.round
                await send_update(client, number, flat if number == 1 else 1000 * flat)
                if number == 1:
                    await client.receive("receipt")
                else:
                    refusal = (await client.receive("refusal")).refusal
                    assert refusal.reason == pb.REFUSAL_REASON_NORM
                    told.append(refusal.message)
        except FinishedError:
            return

    run = federate(tmp_path, act, scheme="fp32", rounds=3)
    assert len(told) == 2
    assert told[0].startswith("the L2 norm of the update is 131.")
    assert [(r.clients, r.left_out) for r in run.records] == [(4, 0), (3, 1), (3, 1)]
    assert run.conduct.strikes == {"mallory": 2}
    assert run.records[-1].test_accuracy > 0.5


def test_where_most_updates_are_too_long_the_limit_was_wrong(tmp_path: Path) -> None:
    """Nobody is shut out for it, and the round after next takes the longer updates."""

    class Growing(Learner):
        def train(self, *arguments: Any, **options: Any) -> float:
            loss = super().train(*arguments, **options)
            np.multiply(self.weights, 1e-3 if arguments[3] == 1 else 1, self.weights)
            return loss

    settings = settings_of(3, scheme="fp32", rounds=4, limits__strikes=1)
    run = asyncio.run(federate_learners(tmp_path, settings, [Growing] * 3))
    assert [(r.clients, r.left_out) for r in run.records] == [(3, 0), (0, 3), (3, 0), (3, 0)]
    assert not run.conduct.strikes


def test_where_most_are_out_of_range_the_model_is_at_fault_and_nobody_is_shut_out(
    tmp_path: Path,
) -> None:
    class Astray(Learner):
        def train(self, *arguments: Any, **options: Any) -> float:
            loss = super().train(*arguments, **options)
            self.weights[0] = 1e6
            return loss

    settings = settings_of(3, scheme="fixed", rounds=3, limits__strikes=1)
    run = asyncio.run(federate_learners(tmp_path, settings, [Astray, Astray, Learner]))
    assert [(r.clients, r.left_out) for r in run.records] == [(1, 2)] * 3
    assert not run.conduct.strikes


def test_the_limit_has_room_for_what_rounding_adds() -> None:
    """Small values at a coarse step: the codes have ten times their norm, and are honest."""
    generator = np.random.default_rng(1)
    values = generator.normal(0, 1e-3, 20_000)
    step = 0.5
    codes = np.floor(values / step + generator.random(values.size))
    coded = float(np.linalg.norm(step * codes))
    conduct = Conduct(LimitsSettings())
    conduct.learn_norms([float(np.linalg.norm(values))] * 3)
    conduct.learn_magnitudes([float(np.abs(values).sum())] * 2 + [1e9])
    assert coded > conduct.norm_limit()
    header = Payload(
        ModelSpec((TensorSpec("t", (values.size,)),)), (step_code(Range(-1.0, 1.0), step),)
    )
    begun = SimpleNamespace(
        norm_limit=conduct.norm_limit(), magnitude_limit=conduct.magnitude_limit()
    )
    limit = exchange._norm_limit(begun, header)  # type: ignore[arg-type]
    assert coded < limit < 10 * coded
    fine = Payload(header.spec, (step_code(Range(-1.0, 1.0), 1e-4),))
    assert exchange._norm_limit(begun, fine) < 2 * conduct.norm_limit()  # type: ignore[arg-type]
