"""Tasks: how they are found, and training against torch's own optimizer."""

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from common.small_tasks import in_memory, small_data, small_model, weights_of
from fedaq.errors import UserError
from fedaq.modules.signature import spec_of
from fedaq.tasks import (
    Examples,
    Normalise,
    Task,
    Training,
    evaluate_classifier,
    load_task,
    subset,
    train_classifier,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def train_with_torch(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=training.learning_rate, momentum=training.momentum
    )
    losses = []
    for _ in range(training.local_epochs):
        batches = list(torch.randperm(len(data), generator=order).split(training.batch_size))
        if len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        for batch in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(data.inputs[batch]), data.targets[batch], reduction="none"
            )
            loss.mean().backward()
            optimizer.step()
            losses.append(loss.detach())
    return float(torch.cat(losses).double().mean())


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("batch_size", [7, 8, 50, 64])
def test_training_is_sgd_with_momentum(momentum: float, batch_size: int) -> None:
    training = Training(3, batch_size, 0.1, momentum)
    mine, reference = small_model(), small_model()
    loss = train_classifier(mine, small_data(), training, seed=4)
    expected = train_with_torch(reference, small_data(), training, seed=4)
    assert loss == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(weights_of(mine), weights_of(reference), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("examples", "batch_size", "seen"),
    [
        (33, 16, [16, 17]), (17, 16, [17]), (3, 2, [3]),
        (32, 16, [16, 16]), (34, 16, [16, 16, 2]), (15, 16, [15]), (1, 16, [1]), (3, 1, [1, 1, 1]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_dataset", [False, True])
def test_an_example_that_is_left_over_joins_the_batch_before_it(
    examples: int, batch_size: int, seen: list[int], as_dataset: bool
) -> None:
    sizes: list[int] = []
    model, data = small_model(), small_data(examples)
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    train_classifier(
        model,
        TensorDataset(data.inputs, data.targets) if as_dataset else data,
        Training(2, batch_size),
        1,
    )
    assert sizes == seen * 2


def test_each_example_is_seen_once_an_epoch_also_the_one_that_is_left_over() -> None:
    model, data = small_model(), small_data(33)
    rows: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0]))
    train_classifier(model, data, Training(1, 16), 7)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.cat(rows), data.inputs[order])


def test_batch_norm_trains_where_an_example_is_left_over() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    train_classifier(model, small_data(33), Training(1, 16), 1)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        train_classifier(model, small_data(1), Training(1, 16), 1)


def test_training_is_a_function_of_the_seed() -> None:
    trained = [small_model() for _ in range(3)]
    for model, seed in zip(trained, (4, 4, 5), strict=True):
        train_classifier(model, small_data(), Training(2, 8), seed)
    first, again, other = map(weights_of, trained)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_frozen_and_unused_weights_stay() -> None:
    model = small_model()
    first, last = model.get_parameter("0.weight"), model.get_parameter("2.weight")
    first.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    before = first.clone(), last.detach().clone()
    train_classifier(model, small_data(), Training(), 1)
    assert torch.equal(first, before[0])
    assert torch.equal(model.get_parameter("unused"), torch.ones(2))
    assert not torch.equal(last, before[1])


def test_a_dataset_trains_and_evaluates_like_examples_in_memory() -> None:
    data = small_data()
    dataset = TensorDataset(data.inputs, data.targets)
    one, two = small_model(), small_model()
    assert train_classifier(one, data, Training(), 1) == train_classifier(
        two, dataset, Training(), 1
    )
    assert torch.equal(weights_of(one), weights_of(two))
    assert evaluate_classifier(one, data) == evaluate_classifier(two, dataset)


def test_evaluation_counts_every_example_once() -> None:
    data, model = small_data(1203), small_model()
    with torch.no_grad():
        scores = model(data.inputs).double().numpy()
    chosen = scores[np.arange(1203), data.targets]
    loss = np.mean(np.log(np.exp(scores).sum(axis=1)) - chosen)
    evaluation = evaluate_classifier(model, data)
    assert evaluation.accuracy == np.mean(scores.argmax(axis=1) == data.targets.numpy())
    assert evaluation.loss == pytest.approx(loss, rel=1e-6)


def test_subset_of_examples_and_of_a_dataset() -> None:
    data = small_data()
    indices = np.array([3, 40, 7])
    part = in_memory(subset(data, indices))
    assert torch.equal(part.inputs, data.inputs[[3, 40, 7]])
    assert torch.equal(part.targets, data.targets[[3, 40, 7]])
    dataset = TensorDataset(data.inputs, data.targets)
    chosen: Any = subset(dataset, indices)
    for got, index in zip(chosen, indices, strict=True):
        assert torch.equal(got[0], data.inputs[index])
    with pytest.raises(UserError, match="list cannot be shared out"):
        subset([1, 2, 3], indices)


def test_normalise() -> None:
    pixels = torch.arange(256).view(1, 1, 16, 16).repeat(2, 3, 1, 1).to(torch.uint8)
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    expected = (pixels.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    layer = Normalise(mean, std)
    torch.testing.assert_close(layer(pixels).double(), expected, rtol=0, atol=1e-6)
    assert not layer.state_dict(), "constants must not travel with the model"


# --- finding a task


def test_a_task_of_ones_own_is_a_task_or_a_function_of_the_data_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "from fedaq.tasks import Task\n"
        "plain = Task('plain', None, None, None)\n"
        "def sized(data):\n"
        "    return Task(str(data), None, None, None)\n"
        "number = 3\n"
        "def wrong(data):\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("my_tasks:plain", None).name == "plain"
    assert load_task("my_tasks:sized", tmp_path).name == str(tmp_path)
    for name in ("number", "wrong"):
        with pytest.raises(UserError, match=r"is a int, not a fedaq\.tasks\.Task"):
            load_task(f"my_tasks:{name}", None)
    with pytest.raises(UserError, match="has no 'missing'"):
        load_task("my_tasks:missing", None)
    with pytest.raises(UserError, match="no module 'nowhere'"):
        load_task("nowhere:task", None)


def test_an_unknown_task_is_told_the_known_ones() -> None:
    with pytest.raises(UserError, match="digits, fashion-mnist, fashion-mnist-cnn, images, cifar"):
        load_task("fashion", None)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("digits", (5, 64), 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
        ("fashion-mnist", (5, 1, 28, 28), 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10),
        # McMahan et al., arXiv 1602.05629, section 3, count the weights of this CNN.
        ("fashion-mnist-cnn", (5, 1, 28, 28), 1_663_370),
    ],
)
def test_models_have_ten_classes_and_their_number_of_weights(
    name: str, shape: tuple[int, ...], parameters: int
) -> None:
    model = load_task(name, None).model()
    assert spec_of(model).parameters == parameters
    inputs = torch.zeros(shape) if name == "digits" else torch.zeros(shape, dtype=torch.uint8)
    assert model(inputs).shape == (5, 10)


def test_a_task_needs_no_data_path_of_its_own() -> None:
    task = load_task("digits", None)
    assert isinstance(task, Task)
    train, test = task.train_data(None), task.test_data(None)
    assert (len(train), len(test)) == (1437, 360)


# --- docs/

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = DOCS / "reference" / "tasks.md"


def test_the_tables_of_partitions_are_what_is_printed() -> None:
    failed, tried = doctest.testfile(
        str(DOCS / "research" / "partitions.md"), module_relative=False
    )
    assert tried > 5
    assert failed == 0


def test_the_task_that_the_guide_shows_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = GUIDE.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "documented.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(0)
    machine = rng.integers(0, 4, 200)
    signatures = rng.normal(size=(4, 64))
    readings = (signatures[machine] + rng.normal(size=(200, 64)) / 2).astype(np.float32)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", readings=readings, machine=machine)
    task = load_task("documented:task", tmp_path)
    torch.manual_seed(0)
    model = task.model()
    for seed in range(3):
        task.train(model, task.train_data(tmp_path), task.training, seed)
    assert task.evaluate(model, task.test_data(tmp_path)).accuracy > 0.9
