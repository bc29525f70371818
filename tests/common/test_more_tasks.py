"""The built-in tasks that are no plain classifiers: numbers, text, a net with BatchNorm."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from fedaq.modules.signature import spec_of
from fedaq.tasks import evaluated, initial_model, load_task, read_data
from fedaq.tasks.text import CHARACTERS


@pytest.mark.parametrize(("name", "better"), [("regression", 0.35), ("text", 12.0)])
def test_a_task_learns_what_it_is_about(name: str, better: float) -> None:
    task = load_task(name, None)
    model = initial_model(task, 1)
    data, test = (read_data(task, part, None) for part in ("train_data", "test_data"))
    before = evaluated(task, model, test)
    training = replace(task.training, local_epochs=10 if name == "regression" else 4)
    task.train(model, data, training, 1)
    after = evaluated(task, model, test)
    assert after.loss < before.loss
    assert task.metric.reaches(after.metrics[task.metric.name], better)


def test_text_is_cut_into_pieces_that_follow_each_other() -> None:
    task = load_task("text", None)
    train, test = read_data(task, "train_data", None), read_data(task, "test_data", None)
    assert len(train) > 4 * len(test) - 5 > 100
    inputs, targets = train.inputs, train.targets  # type: ignore[attr-defined]
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert int(inputs.max()) <= len(CHARACTERS)


def test_pictures_meet_a_residual_network_with_batch_normalization(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for place in range(3):
                Image.new("RGB", (32, 32), (80 * number, 10 * place, 0)).save(
                    folder / f"{place}.png"
                )
    task = load_task("cifar", tmp_path)
    model = initial_model(task, 1)
    spec = spec_of(model, task.classes)
    assert spec.tensors[-1].name == "statistics"
    convolutions = 432 + 2 * 2304 + (4608 + 9216 + 512) + (18432 + 36864 + 2048)
    channels = 16 + 2 * 16 + 3 * 32 + 3 * 64
    assert spec.parameters == convolutions + 4 * channels + 65 * 2
    task.train(model, task.train_data(tmp_path), task.training, 1)
    assert 0 <= task.evaluate(model, task.test_data(tmp_path)).accuracy <= 1
