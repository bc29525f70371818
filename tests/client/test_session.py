"""A client's session against a server that follows a script."""

import asyncio
import gc
import logging
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.script import (
    CHUNK_BYTES,
    FINISH,
    ROUND,
    Message,
    Play,
    ScriptedLink,
    add_one,
    grant,
    model_of,
    plan,
    receipt,
    refusal,
    task,
    training_of,
    welcome,
    whole_round,
)
from fedaq import PROTOCOL_VERSION
from fedaq.codec import chunks
from fedaq.energy.cost import RadioCost
from fedaq.errors import FedaqError
from fedaq.tasks import Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.events import Sent
from fedaq_client.session import Session
from fedaq_client.training import Learner


def test_a_round_goes_as_the_contract_says() -> None:
    cost = RadioCost(1e-7, 2e-7, 3e-7)
    play = Play([welcome(), *whole_round(1), FINISH], radio=cost)
    assert play.act() == "enough"
    assert play.link.kinds() == ["join", *ROUND, "leave"]

    join = play.link.said[0].join
    assert (join.protocol_version, join.client, join.examples) == (PROTOCOL_VERSION, "anna", 7)
    assert [(t.name, tuple(t.shape)) for t in join.model.tensors] == [
        ("wide", (300,)),
        ("single", ()),
    ]
    assert join.radio.uplink_j_per_bit == 1e-7

    report = play.link.said[1].range_report
    assert (report.round, report.train_loss) == (1, 0.25)
    assert [(r.lo, r.hi) for r in report.ranges] == [(1.0, 1.0), (1.0, 1.0)]

    header = play.link.said[2].update
    assert (header.round, header.code_bytes) == (1, 4 * 301)
    chunks = [message.chunk for message in play.link.said[3:5]]
    assert [chunk.offset for chunk in chunks] == [0, CHUNK_BYTES]
    sent = np.frombuffer(b"".join(chunk.data for chunk in chunks), "<f4")
    np.testing.assert_array_equal(sent, np.ones(301))
    assert play.progress == [Sent(1, 9, 0.25, 32.0, 32.0)]


def test_it_trains_from_the_model_of_the_round() -> None:
    trained = []

    def train(model: nn.Module, data: Any, training: Training, seed: int) -> float:
        loss = add_one(model, data, training, seed)
        trained.append(play.learner.weights.copy())
        return loss

    play = Play([welcome(), plan(1), *model_of(1, 2.0), grant(1), receipt(1),
                 plan(2), *model_of(2, -4.0), grant(2), receipt(2), FINISH], train)  # fmt: skip
    play.act()
    np.testing.assert_array_equal(trained, [np.full(301, 3.0), np.full(301, -3.0)])
    np.testing.assert_array_equal(play.learner.held, np.full(301, -4.0))
    np.testing.assert_array_equal(play.learner.weights, np.ones(301))


def test_a_model_may_come_with_other_bits_than_were_planned() -> None:
    """The plan has those of the broadcast; who missed too much is sent the whole model, raw."""
    play = Play([welcome(), plan(1, (8, 8)), *model_of(1), grant(1), receipt(1), FINISH])
    play.act()
    np.testing.assert_array_equal(play.learner.held, np.full(301, 2.0))
    assert play.progress == [Sent(1, 9, 0.25, 32.0, 32.0)]


def test_what_is_granted_no_bits_is_not_sent_but_comes_with_the_next_update() -> None:
    play = Play([welcome(), plan(1), *model_of(1), grant(1, (0, 32)), receipt(1),
                 plan(2), *model_of(2), grant(2), receipt(2),
                 plan(3), *model_of(3), grant(3), receipt(3), FINISH])  # fmt: skip
    play.act()
    headers = [m.update for m in play.link.said if m.WhichOneof("kind") == "update"]
    assert [t.codec for t in headers[0].tensors] == [pb.CODEC_ZERO, pb.CODEC_RAW]
    chunks = [m.chunk for m in play.link.said if m.WhichOneof("kind") == "chunk"]
    sent = [
        np.frombuffer(b"".join(c.data for c in chunks if c.round == number), "<f4").tolist()
        for number in (1, 2, 3)
    ]
    assert sent == [[1.0], [2.0] * 300 + [1.0], [1.0] * 301]


def test_its_codes_use_the_granted_bits_and_its_own_ranges() -> None:
    def train(model: nn.Module, data: Any, training: Training, seed: int) -> float:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.linspace(-1, 3, parameter.numel()).view(parameter.shape))
        return 1.0

    play = Play([welcome(), plan(1), *model_of(1), grant(1, (3, 32)), receipt(1), FINISH], train)
    play.act()
    wide, single = play.link.said[2].update.tensors
    assert (wide.codec, wide.bits, wide.lo, wide.hi) == (pb.CODEC_UNIFORM, 3, -1.0, 3.0)
    assert (single.codec, single.bits) == (pb.CODEC_RAW, 32)
    [chunk] = [m.chunk for m in play.link.said if m.WhichOneof("kind") == "chunk"]
    assert len(chunk.data) == -(-300 * 3 // 8) + 4


@pytest.mark.parametrize("heard", range(5))
def test_a_new_plan_supersedes_the_round_at_any_point(heard: int) -> None:
    """The server goes on without it after `heard` of its lines of round 1 were read."""
    begun = [plan(1), *model_of(1), grant(1)]
    play = Play([welcome(), *begun[: heard + 1], *whole_round(2), FINISH])
    assert play.act() == "enough"
    assert [progress.round for progress in play.progress] == [2]
    assert play.link.kinds()[-len(ROUND) - 1 :] == [*ROUND, "leave"]
    assert all(m.chunk.round == 2 for m in play.link.said[-3:-1])


@pytest.mark.parametrize("heard", range(5))
def test_after_a_refusal_the_next_round_is_open(
    heard: int, caplog: pytest.LogCaptureFixture
) -> None:
    begun = [plan(1), *model_of(1), grant(1)]
    left_over = begun[heard + 1 :]
    play = Play([welcome(), *begun[: heard + 1], refusal(1), *left_over, *whole_round(2), FINISH])
    assert play.act() == "enough"
    assert [progress.round for progress in play.progress] == [2]
    assert "round 1: the server refused the update: for a reason" in caplog.text


def test_a_refusal_of_another_round_does_not_concern_this_one() -> None:
    begun = [plan(3), *model_of(3), refusal(2), grant(3), refusal(1), receipt(3)]
    play = Play([welcome(), *begun, FINISH])
    play.act()
    assert [progress.round for progress in play.progress] == [3]


def test_a_refusal_that_comes_late_does_not_end_the_session() -> None:
    """The server gave the round up, and its receipt or refusal crossed the client's message."""
    play = Play([welcome(), plan(1), refusal(1), refusal(1), *whole_round(2), refusal(2), FINISH])
    assert play.act() == "enough"
    assert [progress.round for progress in play.progress] == [2]


@pytest.mark.parametrize("heard", range(-1, 7))
def test_the_end_of_the_run_may_come_at_any_point(heard: int) -> None:
    lines = [welcome(), *whole_round(1)]
    play = Play([*lines[: heard + 1], FINISH])
    assert play.act() == "enough"
    assert play.link.kinds()[-1] == "leave"


def test_the_end_of_the_run_may_find_the_link_broken() -> None:
    play = Play([welcome(), FINISH])
    assert play.act() == "enough"

    class Broken(ScriptedLink):
        async def send(self, frame: bytes) -> None:
            message = pb.ClientMessage.FromString(frame)
            if message.WhichOneof("kind") == "leave":
                raise FedaqError("the connection broke")
            await super().send(frame)

    async def act() -> str:
        link = Broken([welcome(), FINISH])
        return await Session(link, "anna", play.learner, None, lambda _: None).participate()

    assert asyncio.run(act()) == "enough"


def test_what_the_server_says_cannot_steer_a_terminal() -> None:
    finish = Message(finish=pb.Finish(reason="\x1b[2J" + "enough" * 1000, over=True))
    reason = Play([welcome(), finish]).act()
    assert reason.startswith("?[2Jenough")
    assert reason.isprintable()
    assert len(reason) == 500


def test_an_update_that_is_not_finite_is_reported_as_such(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server hears of it at once and need not wait for its deadline."""

    def diverge(model: nn.Module, data: Any, training: Training, seed: int) -> float:
        with torch.no_grad():
            next(model.parameters())[0] = torch.nan
        return float("nan")

    play = Play([welcome(), plan(1), *model_of(1), 2, refusal(1), FINISH], diverge)
    assert play.act() == "enough"
    assert play.progress == []
    report = play.link.said[1].range_report
    assert len(report.ranges) == 2
    assert all(np.isnan([bounds.lo, bounds.hi]).all() for bounds in report.ranges)
    assert "round 1: training failed: tensor wide: " in caplog.text


# Much data for few code bytes: it could not be what they were coded to.
SWOLLEN = Message(chunk=pb.Chunk(round=1, code_bytes=4, coded_bytes=[2**20], data=bytes(2**20)))
SHORT_MODEL = Message(model=pb.PayloadHeader(round=1, code_bytes=4))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "the server closed the stream"),
        ([plan(1)], "the server sent plan where welcome was due"),
        ([welcome()], "the server closed the stream"),
        ([welcome(), grant(1), receipt(1)], "the server sent receipt where plan was due"),
        ([welcome(), plan(1), grant(1)], "the server sent grant where model was due"),
        ([welcome(), plan(1), SHORT_MODEL], "the payload has 0 tensors, the model 2"),
        ([welcome(), plan(1), *model_of(1)[::2]], "a chunk of the model out of place"),
        ([welcome(), plan(1), *model_of(1)[:2], model_of(1)[1]], "chunk of the model out of place"),
        ([welcome(), plan(1), *model_of(1), receipt(1)], "sent receipt where grant was due"),
        (
            [welcome(), plan(1), *model_of(1), grant(1, (8,))],
            "granted bits [8] with steps [], which cannot be",
        ),
        ([welcome(), plan(1), *model_of(1), grant(1, (17, 8))], "[17, 8] with steps [], which"),
        ([welcome(), plan(1), *model_of(1), grant(1, (8, 8), [1])], "with steps [1.0], which"),
        ([welcome(), plan(1), *model_of(1), grant(1, (8, 8), [1, -1])], "steps [1.0, -1.0], which"),
        ([welcome(), plan(1), *model_of(1), grant(1, (8, 8), [1, inf])], "steps [1.0, inf], which"),
        ([welcome(), plan(1), *model_of(1), grant(1, (8, 8), [1, nan])], "steps [1.0, nan], which"),
        ([welcome(), plan(1), *model_of(1), grant(1), grant(1)], "grant where receipt was due"),
        ([welcome(0.0)], "a heartbeat every 0 s, which cannot be"),
        ([welcome(nan)], "a heartbeat every nan s, which cannot be"),
        ([training_of(local_epochs=0)], "asks for 0 epochs in batches of 1 with"),
        ([training_of(local_epochs=2**31)], "asks for 2147483648 epochs"),
        ([training_of(batch_size=0)], "in batches of 0 with"),
        ([training_of(learning_rate=nan)], "with learning rate nan and"),
        ([training_of(momentum=1.0)], "and momentum 1, which cannot be"),
        ([training_of(optimizer=7)], "asks for optimizer 7, which cannot be"),
        ([training_of(schedule=9)], "asks for schedule 9, which cannot be"),
        ([training_of(schedule=2, step_factor=0.5)], "asks for step_rounds 0, which cannot be"),
        ([training_of(weight_decay=nan)], "asks for weight_decay nan, which cannot be"),
        ([training_of(warmup_rounds=2**31)], "asks for warmup_rounds 2147483648, which"),
        ([training_of(proximal=-1.0)], "asks for proximal -1.0, which cannot be"),
        ([training_of(clip_norm=inf)], "asks for clip_norm inf, which cannot be"),
        (
            [welcome(), Message(plan=pb.RoundPlan(round=1, rounds=9, chunk_bytes=2**31))],
            "asks for chunks of 2147483648 bytes, which cannot be",
        ),
        ([welcome(), plan(1), model_of(1)[0], SWOLLEN], "a chunk of the model out of place"),
    ],
)
def test_a_server_that_breaks_the_protocol_is_told_off_in_one_line(
    lines: list[Message], sentence: str
) -> None:
    with pytest.raises(FedaqError) as caught:
        Play([*lines, None]).act()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_link_ends_the_session_and_leaves_nothing_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Breaking(ScriptedLink):
        def __init__(self) -> None:
            super().__init__([welcome(heartbeat_interval_s=0.001)])
            self.broken = asyncio.Event()

        async def send(self, frame: bytes) -> None:
            message = pb.ClientMessage.FromString(frame)
            if message.WhichOneof("kind") == "heartbeat":
                self.broken.set()
                raise FedaqError("the connection broke")
            await super().send(frame)

        async def receive(self) -> Message | chunks.Chunk | None:
            if self._lines:
                return await super().receive()
            await self.broken.wait()
            raise FedaqError("the connection broke")

    async def act() -> None:
        link = Breaking()
        learner = Learner(task(), task().train_data(None))
        with pytest.raises(FedaqError, match="the connection broke"):
            await Session(link, "anna", learner, None, lambda _: None).participate()
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1

    with caplog.at_level(logging.ERROR):
        asyncio.run(act())
        gc.collect()
    assert caplog.records == []


def test_heartbeats_go_on_while_it_trains() -> None:
    counted: list[int] = []

    def train(model: nn.Module, data: Any, training: Training, seed: int) -> float:
        before = play.link.heartbeats
        while play.link.heartbeats < before + 3:
            pass  # a busy thread, as training is; without heartbeats the test runs into PATIENCE_S
        counted.append(play.link.heartbeats - before)
        return add_one(model, data, training, seed)

    play = Play([welcome(0.01), *whole_round(1), FINISH], train)
    play.act()
    assert counted
    assert counted[0] >= 3


@pytest.mark.parametrize("seed", [0, 1])
def test_the_randomness_of_an_update_follows_from_seed_name_and_round(seed: int) -> None:
    def update(name: str, round_number: int) -> bytes:
        def train(model: nn.Module, data: Any, training: Training, seed: int) -> float:
            with torch.no_grad():
                model.wide.copy_(torch.linspace(0, 1, 300))  # type: ignore[operator]
            return 1.0

        hello = welcome()
        hello.welcome.seed = seed
        lines = [hello, plan(round_number), *model_of(round_number), grant(round_number, (1, 1)),
                 receipt(round_number), FINISH]  # fmt: skip

        async def act() -> bytes:
            link = ScriptedLink(lines)
            learner = Learner(task(train), task().train_data(None))
            await Session(link, name, learner, None, lambda _: None).participate()
            return b"".join(m.chunk.data for m in link.said if m.WhichOneof("kind") == "chunk")

        return asyncio.run(act())

    assert update("anna", 1) == update("anna", 1)
    different = {update("anna", 1), update("anna", 2), update("berta", 1)}
    assert len(different) == 3
