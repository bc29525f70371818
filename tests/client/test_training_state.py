"""What a task's `train` is told, and what it keeps: through rounds, repeats and restarts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.script import FINISH, Play, task, training_of, whole_round
from fedaq.codec.quantizer import Floats
from fedaq.tasks import Examples, Task, Training, TrainingContext
from fedaq.tasks.hardware import device_named
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.training import Learner


def controlled(
    model: nn.Module, data: Any, training: Training, seed: int, context: TrainingContext
) -> float:
    """Add to all weights how often it was called, as its state has it, and remember the weights."""
    rounds = context.state.setdefault("rounds", torch.zeros(()))
    rounds += 1
    with torch.no_grad():
        for name, weight in model.named_parameters():
            assert torch.equal(weight, context.received[name])
            weight.add_(rounds)
    context.state["received"] = dict(context.received)
    return float(rounds)


def updates(learner: Learner, rounds: list[int], name: str = "anna") -> list[float]:
    added = []
    for number in rounds:
        learner.train(Training(), 1, name, number, rounds=9)
        added.append(float(learner.weights[0]))
    return added


def learner(state: Path | None = None) -> Learner:
    part = Learner(task(controlled), task().train_data(None), state=state)
    part.begin("run")
    return part


def test_a_round_that_is_trained_again_gives_the_same_update() -> None:
    assert updates(learner(), [1, 2, 2, 2, 3, 3, 5]) == [1, 2, 2, 2, 3, 3, 4]


def test_training_that_fails_leaves_the_state_as_it_was() -> None:
    def train(
        model: nn.Module, data: Any, training: Training, seed: int, context: TrainingContext
    ) -> float:
        loss = controlled(model, data, training, seed, context)
        if context.round in (2, 3):
            context.state["rounds"].fill_(torch.nan)
            model.get_parameter("single").data.fill_(torch.nan)
        return loss

    part = Learner(task(train), task().train_data(None))
    part.begin("run")
    assert updates(part, [1, 2, 3, 4, 5]) == [1, 2, 2, 2, 3]


def test_another_run_begins_without_a_state() -> None:
    part = learner()
    assert updates(part, [1, 2]) == [1, 2]
    part.begin("run")
    assert updates(part, [3]) == [3]
    part.begin("other")
    assert updates(part, [1]) == [1]


def test_what_is_kept_does_not_follow_the_model_that_is_received_next() -> None:
    part = learner()
    updates(part, [1])
    part.held[:] = 7.0
    kept: dict[str, torch.Tensor] = part._state.before("anna", 2)["received"]
    assert all(torch.equal(value, torch.zeros_like(value)) for value in kept.values())


def test_a_client_that_is_started_again_goes_on_with_its_state(tmp_path: Path) -> None:
    assert updates(learner(tmp_path), [1, 2]) == [1, 2]
    assert updates(learner(tmp_path), [2, 3]) == [2, 3]
    last = learner(tmp_path)
    assert updates(last, [4]) == [4]
    last.end()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_kept_optimizer_outlives_a_restart(optimizer: Any, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(3)
    data = Examples(torch.randn(20, 6, generator=rng), torch.arange(20) % 3)
    own = Task("kept", lambda: nn.Linear(6, 3), lambda _: data, lambda _: data)
    training = Training(1, 8, 0.05, 0.9, optimizer=optimizer, keep_optimizer=True)

    def trained(folder: Path | None, restarts: bool) -> Floats:
        part = Learner(own, data, state=folder)
        part.begin("run")
        for number in range(1, 5):
            if restarts:
                held, part = part.held, Learner(own, data, state=folder)
                part.begin("run")
                part.held[:] = held
            part.train(training, 1, "anna", number)
            part.held += part.weights
        return part.held

    through = trained(None, restarts=False)
    assert np.array_equal(trained(tmp_path, restarts=True), through)
    assert not np.array_equal(trained(None, restarts=True), through)


# ---- In a session ------------------------------------------------------------------


def test_it_is_told_the_round_the_rate_and_the_device_and_tells_its_progress() -> None:
    told: list[Any] = []

    def train(
        model: nn.Module, data: Any, training: Training, seed: int, context: TrainingContext
    ) -> float:
        first = torch.Generator().manual_seed(seed)
        told.append((
            context.round, context.rounds, round(training.learning_rate, 6), context.device.type,
            torch.equal(torch.rand(2, generator=context.generator), torch.rand(2, generator=first)),
        ))  # fmt: skip
        context.progress(1, 2)
        return 0.5

    seen: list[tuple[int, int]] = []
    asked = training_of(schedule=pb.SCHEDULE_STEP, step_rounds=1, step_factor=0.5)
    play = Play([asked, *whole_round(1), *whole_round(3), FINISH], train,
                on_training=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert play.act() == "enough"
    assert told == [(1, 9, 0.1, "cpu", True), (3, 9, 0.025, "cpu", True)]
    assert seen == [(1, 2), (1, 2)]
    assert play.link.said[0].join.training == 4


# ---- On another device -------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_trains_the_same_update_but_for_rounding() -> None:
    rng = torch.Generator().manual_seed(3)
    data = Examples(torch.randn(20, 6, generator=rng), torch.arange(20) % 3)
    own = Task("gpu", lambda: nn.Linear(6, 3), lambda _: data, lambda _: data)
    training = Training(
        2, 8, 0.05, 0.9, optimizer="adamw", proximal=0.1, clip_norm=1.0, keep_optimizer=True
    )
    parts = [Learner(own, data, device=device_named(name)) for name in ("cpu", "cuda", "cuda")]
    for part in parts:
        part.begin("run")
        for number in (1, 2):
            part.train(training, 1, "anna", number)
            part.held += part.weights
    on_cpu, on_gpu, again = (part.held for part in parts)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=1e-5)
    assert np.array_equal(on_gpu, again)
