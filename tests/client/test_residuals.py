"""What a client did not send comes later, and nothing of it is lost or sent twice."""

import asyncio
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from torch import nn

import packed_codes
from fedaq import PROTOCOL_VERSION
from fedaq.codec import chunks, headers, model, payload
from fedaq.codec.payload import RAW, ZERO, Payload, coarser_steps, plan_payload
from fedaq.codec.quantizer import Floats, Range, value_range
from fedaq.tasks import Evaluation, Examples, Task, Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.session import Session
from fedaq_client.training import Learner

SIZES = (40, 3, 1)
STEP = 2.0**-6
PATIENCE_S = 20


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tensors = nn.ParameterList(torch.full((size,), 0.5) for size in SIZES)


def progress_of(seed: int) -> Floats:
    """What training adds to the weights with this seed."""
    return np.random.default_rng(seed).normal(0, 1, sum(SIZES)).astype(np.float32)


def train(module: nn.Module, data: Any, training: Training, seed: int) -> float:
    parts = np.split(progress_of(seed), np.cumsum(SIZES)[:-1])
    with torch.no_grad():
        for parameter, added in zip(module.parameters(), parts, strict=True):
            parameter.add_(torch.from_numpy(added))
    return 1.0


def learner() -> Learner:
    data = Examples(torch.zeros(7, 1), torch.zeros(7, dtype=torch.int64))
    task = Task(
        "residuals", Weights, lambda _: data, lambda _: data, train=train,
        evaluate=lambda module, data: Evaluation(0.5, 1.0),
    )  # fmt: skip
    return Learner(task, data)


def trained(part: Learner, round_number: int) -> Floats:
    """Train; return what this training alone added."""
    before = part.held.copy()
    part.train(Training(), 1, "anna", round_number)
    assert part.held.tobytes() == before.tobytes()
    alone = learner()
    alone.held[:] = part.held
    alone.train(Training(), 1, "anna", round_number)
    return alone.weights.copy()


# ---- The learner -------------------------------------------------------------


@given(st.lists(st.tuples(*[st.booleans()] * len(SIZES)), min_size=1, max_size=8))
@profile(max_examples=30)
def test_all_that_training_added_is_sent_or_left(rounds: list[tuple[bool, ...]]) -> None:
    part = learner()
    added, sent = np.zeros(sum(SIZES)), np.zeros(sum(SIZES))
    for number, skips in enumerate(rounds, 1):
        added += trained(part, number)
        for keep, where in zip(skips, part.spec.slices, strict=True):
            if not keep:
                sent[where] += part.weights[where]
        part.keep_unsent(number, (not skip for skip in skips))
    # One more update brings all that was left.
    added += trained(part, len(rounds) + 1)
    sent += part.weights
    np.testing.assert_allclose(sent, added, atol=1e-5)


def test_what_was_left_comes_once_with_the_next_update_that_is_sent() -> None:
    part = learner()
    first, w, b = trained(part, 1), *learner().spec.slices[:2]
    part.keep_unsent(1, (True, False, True))
    second = trained(part, 2)
    np.testing.assert_allclose(part.weights[b], first[b] + second[b], atol=1e-6)
    assert part.weights[w].tobytes() == second[w].tobytes()
    part.keep_unsent(2, (True, True, True))
    third = trained(part, 3)
    assert part.weights.tobytes() == third.tobytes()


def test_what_was_left_survives_a_round_without_an_update() -> None:
    part = learner()
    first = trained(part, 1)
    part.keep_unsent(1, (False, False, False))
    trained(part, 2)  # refused or superseded before anything was sent
    third = trained(part, 3)
    np.testing.assert_allclose(part.weights, first + third, atol=1e-6)


def test_what_is_left_is_a_copy() -> None:
    part = learner()
    first = trained(part, 1)
    part.keep_unsent(1, (False, False, False))
    part.weights[:] = 99.0
    second = trained(part, 2)
    np.testing.assert_allclose(part.weights, first + second, atol=1e-6)


def test_a_round_that_is_trained_again_gives_the_same_update() -> None:
    """Its server was stopped after the update and before it had committed the round."""
    part = learner()
    trained(part, 1)
    part.keep_unsent(1, (False, True, True))
    trained(part, 2)
    first = part.weights.copy()
    part.keep_unsent(2, (True, False, True))
    trained(part, 2)
    assert part.weights.tobytes() == first.tobytes()


def test_another_run_begins_without_what_was_left_in_the_last() -> None:
    part = learner()
    part.begin("one")
    trained(part, 1)
    part.keep_unsent(1, (False, False, False))
    part.begin("one")
    alone = trained(part, 2)
    assert part.weights.tobytes() != alone.tobytes()
    part.begin("another")
    alone = trained(part, 1)
    assert part.weights.tobytes() == alone.tobytes()


# ---- The session -------------------------------------------------------------


class ScriptedLink:
    """A server that says its lines one by one."""

    def __init__(self, lines: Iterable[pb.ServerMessage]) -> None:
        self._lines = list(lines)
        self.said: list[pb.ClientMessage] = []

    async def send(self, frame: bytes) -> None:
        message = pb.ClientMessage.FromString(frame)
        if message.WhichOneof("kind") != "heartbeat":
            self.said.append(message)

    async def receive(self) -> pb.ServerMessage | chunks.Chunk:
        await asyncio.sleep(0)
        return chunks.parse(self._lines.pop(0).SerializeToString(), pb.ServerMessage)

    def heard(self, kind: str) -> list[Any]:
        return [getattr(m, kind) for m in self.said if m.WhichOneof("kind") == kind]

    def updates(self, spec: model.ModelSpec) -> list[tuple[Payload, Floats]]:
        """Return the header and the values of each update."""
        found: list[tuple[Payload, Floats]] = []
        for message in self.said:
            if message.WhichOneof("kind") == "update":
                header = headers.from_message(spec, message.update)
                found.append((header, np.zeros(spec.parameters, np.float32)))
            if message.WhichOneof("kind") == "chunk":
                header, values = found[-1]
                codes = packed_codes.codes_of(header, chunks.read(message.chunk))
                packed_codes.decode_chunk(header, message.chunk.offset, codes, values)
        return found


def welcome() -> pb.ServerMessage:
    return pb.ServerMessage(
        welcome=pb.Welcome(
            protocol_version=PROTOCOL_VERSION,
            seed=1,
            training=pb.Training(local_epochs=1, batch_size=1, learning_rate=0.1, momentum=0.5),
            heartbeat_interval_s=1000.0,
        )
    )


def plan(number: int) -> pb.ServerMessage:
    return pb.ServerMessage(
        plan=pb.RoundPlan(round=number, rounds=9, entropy=True, prove=True, chunk_bytes=1024)
    )


def model_of(number: int, header: Payload, flat: Floats, base: bytes = b"") -> list[Any]:
    keys = payload.transfer_keys(header.spec, 1, "test")
    message = payload.to_message(header, number, base)
    lines = [pb.ServerMessage(model=message)]
    for offset, length in header.chunks(1024):
        data = packed_codes.encode_chunk(
            header, flat.__getitem__, keys, offset, length, nearest=True
        )
        chunk = packed_codes.to_chunk(header, number, offset, data, squeeze=True)
        lines.append(pb.ServerMessage.FromString(chunk.frame(pb.ServerMessage)))
    return lines


def grant(number: int, bits: tuple[int, ...], limit_bytes: int = 0) -> pb.ServerMessage:
    steps = [STEP if 0 < b <= 16 else 0.0 for b in bits]
    return pb.ServerMessage(
        grant=pb.UplinkGrant(
            round=number, uplink_bits=bits, uplink_steps=steps, limit_bytes=limit_bytes
        )
    )


def receipt(number: int) -> pb.ServerMessage:
    return pb.ServerMessage(receipt=pb.Receipt(round=number))


def refusal(number: int) -> pb.ServerMessage:
    return pb.ServerMessage(refusal=pb.Refusal(round=number, message="for a reason"))


FINISH = pb.ServerMessage(finish=pb.Finish(reason="enough", over=True))
SPEC = learner().spec
ZEROS = Payload(SPEC, (ZERO,) * len(SIZES))
NOTHING = np.zeros(SPEC.parameters, np.float32)


def act(part: Learner, *lines: pb.ServerMessage) -> ScriptedLink:
    link = ScriptedLink([welcome(), *lines, FINISH])

    async def play() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await Session(link, "anna", part, None, lambda progress: None).participate()

    asyncio.run(play())
    assert not link._lines
    return link


def round_of(number: int, part: Learner, granted: pb.ServerMessage) -> list[pb.ServerMessage]:
    """A round that begins with the model that is held."""
    nothing = model_of(number, ZEROS, NOTHING, model.digest(part.held))
    return [plan(number), *nothing, granted, receipt(number)]


def test_a_tensor_that_is_not_granted_comes_with_the_next_that_is() -> None:
    part = learner()
    link = act(
        part,
        *round_of(1, part, grant(1, (8, 0, 8))),
        *round_of(2, part, grant(2, (0, 0, 8))),
        *round_of(3, part, grant(3, (8, 8, 8))),
        *round_of(4, part, grant(4, (8, 8, 8))),
    )
    updates = link.updates(SPEC)
    codes = [[code == ZERO for code in header.codes] for header, _ in updates]
    assert codes == [[False, True, False], [True, True, False], [False] * 3, [False] * 3]
    alone = []
    for number in range(1, 5):
        other = learner()
        other.train(Training(), 1, "anna", number)
        alone.append(other.weights.copy())
    sums = [[0], [], [0]], [[], [], [1]], [[1, 2], [0, 1, 2], [2]], [[3], [3], [3]]
    for (_, values), expected in zip(updates, sums, strict=True):
        for where, rounds in zip(SPEC.slices, expected, strict=True):
            true = sum((alone[r][where] for r in rounds), np.zeros_like(values[where]))
            np.testing.assert_allclose(values[where], true, atol=STEP * 1.01)
    # The ranges that are reported are those of what would be sent.
    for report, numbers in zip(link.heard("range_report"), ([0], [0, 1], [0, 1, 2]), strict=False):
        where = SPEC.slices[1]
        bounds = value_range(sum((alone[n][where] for n in numbers), np.zeros(3, np.float32)))
        assert report.ranges[1].lo == pytest.approx(bounds.lo, abs=1e-6)
        assert report.ranges[1].hi == pytest.approx(bounds.hi, abs=1e-6)


def test_what_does_not_fit_a_limit_is_coarser_or_left_for_later() -> None:
    """The granted steps first; nothing of an update for which even the coarsest are too fine."""
    part = learner()
    link = act(
        part,
        *round_of(1, part, grant(1, (8, 8, 8), limit_bytes=80)),
        *round_of(2, part, grant(2, (8, 8, 8), limit_bytes=13)),
        *round_of(3, part, grant(3, (8, 8, 8), limit_bytes=10**6)),
    )
    (coarse, values), (none, _), (fine, all_values) = link.updates(SPEC)
    first, second, third = (learner() for _ in range(3))
    for number, other in enumerate((first, second, third), 1):
        other.train(Training(), 1, "anna", number)
    steps = {code.step for code in coarse.codes}
    assert steps < set(coarser_steps(STEP)[1:])
    assert len(steps) == 1
    assert np.abs(values - first.weights).max() <= max(steps) * 1.01
    assert none.codes == (ZERO,) * 3
    assert {code.step for code in fine.codes} == {STEP}
    np.testing.assert_allclose(all_values, second.weights + third.weights, atol=STEP * 1.01)


def test_a_refused_update_takes_nothing_of_what_was_left_with_it() -> None:
    """What was skipped is kept; what was sent and refused is lost, as without residuals."""
    part = learner()
    nothing = model_of(1, ZEROS, NOTHING, model.digest(part.held))
    link = act(
        part,
        *(plan(1), *nothing, grant(1, (8, 0, 8)), refusal(1)),
        *(plan(2), *nothing, refusal(2)),
        *round_of(3, part, grant(3, (8, 8, 8))),
    )
    _, (_, values) = link.updates(SPEC)
    first, third = learner(), learner()
    first.train(Training(), 1, "anna", 1)
    third.train(Training(), 1, "anna", 3)
    expected = third.weights.copy()
    expected[SPEC.slices[1]] += first.weights[SPEC.slices[1]]
    np.testing.assert_allclose(values, expected, atol=STEP * 1.01)


# ---- What comes down ---------------------------------------------------------


def test_a_tensor_that_is_zero_in_a_whole_model_is_zero_where_it_arrives() -> None:
    part = learner()
    flat = np.arange(1, SPEC.parameters + 1, dtype=np.float32)
    flat[SPEC.slices[1]] = 0
    header = Payload(SPEC, (RAW, ZERO, RAW))
    act(part, plan(1), *model_of(1, header, flat), grant(1, (0, 0, 0)), receipt(1))
    assert part.held.tolist() == flat.tolist()


def test_a_tensor_without_a_difference_stays_as_it_was() -> None:
    part = learner()
    before = part.held.copy()
    bounds = [Range(-1.0, 1.0)] * len(SIZES)
    header = plan_payload(SPEC, (8, 0, 32), bounds, (0.25, 0.0, 0.0))
    flat = np.full(SPEC.parameters, 0.25, np.float32)
    lines = model_of(1, header, flat, model.digest(before))
    link = act(part, plan(1), *lines, grant(1, (0, 0, 0)), receipt(1))
    expected = before + flat
    expected[SPEC.slices[1]] = before[SPEC.slices[1]]
    assert part.held.tolist() == expected.tolist()
    [report] = link.heard("range_report")
    # The codes of the one tensor that had a step were one step up.
    past = np.repeat([1, 0, 0], SIZES).astype(np.uint8)
    assert report.holds == model.digest(expected, past)


def test_a_difference_for_another_model_is_not_added() -> None:
    part = learner()
    before = part.held.copy()
    header = Payload(SPEC, (RAW,) * len(SIZES))
    lines = model_of(1, header, before, b"another!")
    link = act(part, plan(1), *lines, refusal(1))
    assert part.held.tobytes() == before.tobytes()
    assert link.heard("range_report")[0].holds == link.heard("join")[0].holds
    assert link.heard("join")[0].holds == model.digest(before)


def test_half_a_difference_changes_nothing() -> None:
    part = learner()
    before = part.held.copy()
    header = Payload(SPEC, (RAW,) * len(SIZES))
    lines = model_of(1, header, before, model.digest(before))
    whole = model_of(2, header, before, model.digest(before))
    cut = pb.ServerMessage()
    cut.CopyFrom(lines[1])
    cut.chunk.data = cut.chunk.data[:80]
    act(part, plan(1), lines[0], cut, plan(2), *whole, grant(2, (0, 0, 0)), receipt(2))
    assert part.held.tolist() == (2 * before).tolist()
