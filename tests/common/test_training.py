"""What a client trains with: against torch's optimizers, and numpy on a model of one matrix."""

from math import cos, inf, nan, pi
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from common.small_tasks import small_data, small_model, weights_of
from fedaq.tasks import Examples, Training, TrainingContext, train_classifier, trainer
from fedaq.tasks.training import from_message, is_plain, to_message
from fedaq.v1 import federation_pb2 as pb

pytestmark = pytest.mark.usefixtures("one_thread")
Doubles = NDArray[np.float64]


# ---- Optimizers, against torch's ---------------------------------------------------


def with_torch(optimizer: torch.optim.Optimizer, model: nn.Module, training: Training) -> None:
    data, order = small_data(), torch.Generator().manual_seed(4)
    for _ in range(training.local_epochs):
        for batch in torch.randperm(len(data), generator=order).split(training.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.inputs[batch]), data.targets[batch]).backward()
            if training.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("clip_norm", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_training_is_that_of_torch(kind: Any, clip_norm: float, weight_decay: float) -> None:
    training = Training(
        5, 16, 0.02, 0.9, optimizer=kind, weight_decay=weight_decay, clip_norm=clip_norm
    )
    mine, theirs = small_model(), small_model()
    train_classifier(mine, small_data(), training, seed=4)
    optimizer = (
        torch.optim.SGD(theirs.parameters(), 0.02, 0.9, weight_decay=weight_decay)
        if kind == "sgd"
        else torch.optim.AdamW(theirs.parameters(), 0.02, weight_decay=weight_decay)
    )
    with_torch(optimizer, theirs, training)
    torch.testing.assert_close(weights_of(mine), weights_of(theirs), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_kept_optimizer_goes_on_where_it_was_and_another_begins_anew(kind: Any) -> None:
    """With all examples in a batch, two rounds of an epoch are one of two epochs."""

    def after(rounds: int, epochs: int, keep: bool) -> torch.Tensor:
        model, context = small_model(), TrainingContext()
        training = Training(epochs, 50, 0.1, 0.9, optimizer=kind, keep_optimizer=keep)
        for _ in range(rounds):
            train_classifier(model, small_data(), training, 1, context)
        assert bool(context.state) == keep
        return weights_of(model)

    once = after(1, 2, keep=False)
    torch.testing.assert_close(after(2, 1, keep=True), once, rtol=0, atol=1e-6)
    assert (after(2, 1, keep=False) - once).abs().max() > 1e-3


# ---- FedProx, against numpy --------------------------------------------------------


def descended(
    start: Doubles, inputs: Doubles, targets: Doubles, *, rate: float, proximal: float, steps: int
) -> Doubles:
    """Least squares by gradient descent, drawn back to the start."""
    weights = start.copy()
    for _ in range(steps):
        gradient = 2 * (inputs @ weights - targets) @ inputs / len(inputs)
        weights -= rate * (gradient + proximal * (weights - start))
    return weights


@pytest.mark.parametrize("proximal", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("told", [True, False])
def test_fedprox_draws_weights_back_to_those_received(proximal: float, told: bool) -> None:
    rng = np.random.default_rng(0)
    inputs, start = rng.normal(size=(20, 4)), rng.normal(size=4)
    targets = inputs @ rng.normal(size=4)
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(start))
    received = {"weight": model.weight.detach().clone()} if told else {}
    train = trainer(lambda outputs, targets: nn.functional.mse_loss(outputs[:, 0], targets))
    data = Examples(torch.from_numpy(inputs).float(), torch.from_numpy(targets).float())
    training = Training(30, 20, 0.1, 0.0, proximal=proximal)
    train(model, data, training, 1, TrainingContext(received=received))
    expected = descended(start, inputs, targets, rate=0.1, proximal=proximal, steps=30)
    np.testing.assert_allclose(model.weight.detach()[0], expected, rtol=1e-5)


# ---- Mixed precision ---------------------------------------------------------------


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    seen: list[torch.dtype] = []
    mixed, plain = small_model(), small_model()
    mixed[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    train_classifier(mixed, small_data(), Training(3, mixed_precision=True), 1)
    train_classifier(plain, small_data(), Training(3), 1)
    assert set(seen) == {torch.bfloat16}
    assert {weight.dtype for weight in mixed.parameters()} == {torch.float32}
    moved = (weights_of(plain) - weights_of(small_model())).norm()
    apart = (weights_of(mixed) - weights_of(plain)).norm()
    assert 0 < apart < 0.05 * moved


# ---- Schedules ---------------------------------------------------------------------


def rates(rounds: int, **fields: Any) -> list[float]:
    training = Training(learning_rate=2.0, **fields)
    return [training.in_round(number, rounds).learning_rate for number in range(1, rounds + 1)]


def test_the_learning_rate_follows_its_schedule() -> None:
    assert rates(3) == [2, 2, 2]
    assert rates(4, schedule="cosine") == pytest.approx([1 + cos(pi * i / 4) for i in range(4)])
    assert rates(5, schedule="step", step_rounds=2, step_factor=0.5) == [2, 2, 1, 1, 0.5]
    assert rates(4, warmup_rounds=3) == pytest.approx([0.5, 1, 1.5, 2])
    assert rates(6, warmup_rounds=2, schedule="cosine") == pytest.approx(
        [2 / 3, 4 / 3, *(1 + cos(pi * i / 4) for i in range(4))]
    )
    assert rates(4, warmup_rounds=2, schedule="step", step_rounds=1) == pytest.approx(
        [2 / 3, 4 / 3, 2, 0.2]
    )


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("number", [1, 7, 10**6])
def test_a_round_beyond_the_last_has_a_learning_rate(schedule: Any, number: int) -> None:
    training = Training(schedule=schedule, step_rounds=1)
    assert training.in_round(number, 0).learning_rate > 0


# ---- On its way to the client ------------------------------------------------------

EVERYTHING = Training(
    3, 7, 0.3, 0.9, "adamw", 0.01, "step", 2, 5, 0.5, 0.125, 1.5, mixed_precision=True,
    keep_optimizer=True,
)  # fmt: skip


@pytest.mark.parametrize("training", [Training(), EVERYTHING, Training(schedule="cosine")])
def test_it_arrives_as_it_was_sent(training: Training) -> None:
    message = pb.Training.FromString(to_message(training).SerializeToString())
    assert from_message(message) == training


def test_plain_sgd_travels_in_the_bytes_that_it_always_had() -> None:
    message = pb.Training(local_epochs=1, batch_size=32, learning_rate=0.05, momentum=0.5)
    assert to_message(Training()) == message
    assert is_plain(Training(2, 3, 0.1, 0.0))
    assert not is_plain(Training(proximal=0.1))
    assert not is_plain(EVERYTHING)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"local_epochs": 0}, "0 epochs in batches of 32"),
        ({"optimizer": "adam"}, "optimizer adam, which cannot be"),
        ({"schedule": "linear"}, "schedule linear"),
        ({"weight_decay": -1.0}, "weight_decay -1.0"),
        ({"proximal": nan}, "proximal nan"),
        ({"clip_norm": inf}, "clip_norm inf"),
        ({"warmup_rounds": -1}, "warmup_rounds -1"),
        ({"step_factor": 0.0}, "step_factor 0.0"),
        ({"step_rounds": 0}, "step_rounds 0"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Training(**fields)


def test_progress_is_told_of_every_batch() -> None:
    told: list[tuple[int, int]] = []
    context = TrainingContext(progress=lambda done, total: told.append((done, total)))
    train_classifier(small_model(), small_data(50), Training(2, 20), 1, context)
    assert told == [(number, 6) for number in range(1, 7)]
