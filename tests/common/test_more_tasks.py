"""The built-in tasks that are no plain classifiers: numbers, text, a net with BatchNorm."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedaq.errors import UserError
from fedaq.modules.signature import spec_of
from fedaq.tasks import evaluated, initial_model, load_task, read_data
from fedaq.tasks.cifar import CLASSES, FILES, read_batch
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


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin"])
def test_the_official_binary_files_are_read(tmp_path: Path, below: str) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(10, size=12).astype(np.uint8)
    pixels = rng.integers(256, size=(12, 3, 32, 32), dtype=np.uint8)
    (tmp_path / below).mkdir(exist_ok=True)
    for number, name in enumerate((*FILES["train"], *FILES["test"])):
        own = slice(2 * number, 2 * number + 2)
        content = b"".join(bytes([label]) + picture.tobytes() for label, picture in zip(
            labels[own], pixels[own], strict=True
        ))  # fmt: skip
        (tmp_path / below / name).write_bytes(content)
    task = load_task("cifar-group", tmp_path)
    assert task.classes == CLASSES
    train, test = (read_data(task, part, tmp_path) for part in ("train_data", "test_data"))
    assert torch.equal(train.inputs, torch.from_numpy(pixels[:10]))  # type: ignore[attr-defined]
    assert train.targets.tolist() == labels[:10].tolist()  # type: ignore[attr-defined]
    assert torch.equal(test.inputs, torch.from_numpy(pixels[10:]))  # type: ignore[attr-defined]
    model = initial_model(task, 1)
    assert sum(weight.numel() for weight in model.parameters()) == 272_474
    assert spec_of(model, task.classes).tensors[-1].name != "statistics"
    assert 0 <= task.evaluate(model, test).accuracy <= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes; pictures of 3073"),
        (bytes(3074), "3074 bytes; pictures of 3073"),
        (bytes([10]) + bytes(3072), "label 10; labels are 0 to 9"),
        (None, "cannot be read"),
    ],
)
def test_a_binary_file_that_is_none_is_refused(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "data_batch_1.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_batch(path)
