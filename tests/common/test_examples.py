"""Data as people have it: rows with named columns, pictures, labels in several forms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from common.small_tasks import small_data, small_model, weights_of
from fedaq.errors import UserError
from fedaq.settings import PartitionSettings
from fedaq.tasks import Examples, Training, evaluate_classifier, subset, train_classifier
from fedaq.tasks.examples import example, pair_of
from fedaq.tasks.partition import labels_of, owners_of

pytestmark = pytest.mark.usefixtures("one_thread")


class Rows:
    """What of a ``datasets.Dataset`` counts: rows by number, columns by name, no base of torch."""

    def __init__(self, data: Examples, names: Sequence[str] = ("x", "label")) -> None:
        self._columns = dict(zip(names, (data.inputs, data.targets), strict=True))

    @property
    def column_names(self) -> list[str]:
        return list(self._columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self._columns[key].tolist()
        return {name: column[key] for name, column in self._columns.items()}


@pytest.mark.parametrize("names", [("image", "label"), ("pixel_values", "labels"), ("row", "y")])
def test_rows_with_named_columns_are_examples(names: tuple[str, str]) -> None:
    data = small_data()
    rows: Any = Rows(data, names)
    one, two = small_model(), small_model()
    assert train_classifier(one, data, Training(), 1) == train_classifier(two, rows, Training(), 1)
    assert torch.equal(weights_of(one), weights_of(two))
    assert evaluate_classifier(one, data) == evaluate_classifier(two, rows)


def test_rows_are_shared_out_by_their_labels() -> None:
    data = small_data(90)
    rows: Any = Rows(data)
    assert labels_of(rows).tolist() == data.targets.tolist()
    owners = owners_of(rows, 3, PartitionSettings(kind="shards"), 1)
    mine = np.flatnonzero(owners == 1)
    part: Any = subset(rows, mine)
    assert len(part) == 30
    assert [int(part[n]["label"]) for n in range(30)] == data.targets[mine].tolist()


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (3, "an example is a int; a pair"),
        ((1, 2, 3), "an example is a tuple; a pair"),
        ({"image": 1}, "has the columns image; a label"),
        ({"text": 1, "words": 2, "label": 0}, "has the columns text, words, label; a label"),
        ({}, "has the columns none"),
    ],
)
def test_what_is_no_example(item: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        pair_of(item)


def test_one_column_of_many_is_the_input_if_it_is_called_so() -> None:
    assert pair_of({"id": 7, "image": 1, "label": 2}) == (1, 2)


@pytest.mark.parametrize(("mode", "shape"), [("L", (1, 3, 5)), ("RGB", (3, 3, 5))])
def test_a_picture_becomes_bytes_with_the_channels_first(mode: str, shape: Any) -> None:
    picture = Image.new(mode, (5, 3))
    picture.putpixel((4, 2), 200 if mode == "L" else (200, 100, 50))
    pixels, label = pair_of({"image": picture, "label": 3})
    assert (pixels.dtype, tuple(pixels.shape), label) == (torch.uint8, shape, 3)
    assert pixels[:, 2, 4].tolist() == [200, 100, 50][: shape[0]]


def test_an_example_that_fails_is_named_by_its_place_in_the_whole() -> None:
    class Faulty(Dataset[Any]):
        def __getitem__(self, index: int) -> Any:
            if index == 16:
                raise OSError("truncated\nat byte 7")
            return torch.zeros(2), 0

    whole: Any = Faulty()
    part = subset(subset(whole, np.arange(10, 20)), np.arange(4, 9))
    assert len(example(part, 1)) == 2
    with pytest.raises(UserError, match=r"task's data: Faulty\[16\] failed: OSError: truncated$"):
        example(part, 2)


def test_numbers_are_no_labels() -> None:
    data = changed(torch.rand(50))
    sentence = r"the labels are torch\.float32; a classifier takes"
    with pytest.raises(UserError, match=sentence):
        evaluate_classifier(small_model(), data)
    with pytest.raises(UserError, match=sentence):
        train_classifier(small_model(), data, Training(), 1)


def changed(targets: Tensor) -> Examples:
    return replace(small_data(), targets=targets)


@pytest.mark.parametrize(
    "form",
    [
        lambda labels: labels.int(),
        lambda labels: labels[:, None],
        lambda labels: labels.to(torch.uint8)[:, None],
        lambda labels: nn.functional.one_hot(labels, 3).float(),
    ],
    ids=["int32", "a column", "a column of bytes", "probabilities"],
)
def test_labels_in_other_forms_train_and_test_alike(form: Any) -> None:
    data = small_data()
    other = changed(form(data.targets))
    one, two = small_model(), small_model()
    losses = [
        train_classifier(model, examples, Training(), 1)
        for model, examples in ((one, data), (two, other))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.testing.assert_close(weights_of(one), weights_of(two), rtol=0, atol=1e-6)
    first, second = evaluate_classifier(one, data), evaluate_classifier(two, other)
    assert first.accuracy == second.accuracy
    assert first.loss == pytest.approx(second.loss, rel=1e-5)
