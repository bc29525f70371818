"""What `fedaq check-task` says of broken data: each mistake in one sentence, with the remedy."""

from collections.abc import Callable, Sized
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from client.checked_tasks import (
    GOOD,
    OTHER_ORDER,
    changed,
    checked,
    descend,
    examples,
    failing,
    sentences,
)
from fedaq.errors import UserError
from fedaq.settings import PartitionSettings
from fedaq.tasks import Examples, Training
from fedaq.tasks.partition import WHOLE, Partition, owners_of
from fedaq_client.cli import task_data
from fedaq_client.cli.task_findings import Kind


class Pairs(Dataset[Any]):
    """A data set of whatever is given."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def refusing(data: Path | None) -> Sized:
    raise UserError("task x: --data DIR must hold a.csv")


DATA: list[tuple[Callable[[Path | None], Any], str]] = [
    (refusing, "task x: --data DIR must hold a.csv"),
    (
        lambda data: [1][data / "x"],  # type: ignore[index,operator]
        "train_data(None) failed: TypeError: unsupported operand type(s) for /: 'NoneType' and "
        "'str'; if it needs a folder, say which with --data",
    ),
    (lambda data: iter([]), "train_data returned a list_iterator; return Examples or a Dataset"),
    (lambda data: None, "train_data returned None; return Examples or a Dataset"),
    (lambda data: examples(0), "train_data is empty; at least one example is needed"),
    (
        lambda data: changed(targets=torch.zeros(39, dtype=torch.int64)),
        "train_data: 40 inputs and 39 targets; each input needs one target",
    ),
    (
        lambda data: changed(inputs=torch.full((40, 4), nan)),
        "the training data has inputs with NaN or infinity; leave them out",
    ),
    (
        lambda data: changed(inputs=torch.zeros(40, 4, dtype=torch.uint8)),
        "the model does not take its inputs: inputs are torch.uint8 and weights float32: let "
        "train_data return .float(), or let the model begin with fedaq.tasks.Normalise (",
    ),
    (
        lambda data: changed(inputs=torch.zeros(40, 4, dtype=torch.float64)),
        "the model does not take its inputs: inputs are torch.float64 and weights float32: let "
        "train_data return .float() (",
    ),
    (
        lambda data: changed(targets=torch.zeros(40)),
        "the training data has labels torch.float32 32 for 32 inputs; int64 32 is needed, one "
        "class number each",
    ),
    (
        lambda data: changed(targets=torch.zeros(40, 3, dtype=torch.int64)),
        "the training data has labels torch.int64 32x3 for 32 inputs; int64 32 is needed",
    ),
    (
        # Beyond the first batch.
        lambda data: changed(targets=torch.cat([torch.zeros(39), torch.ones(1) * 7]).long()),
        "the training data has labels 0 to 7; the model has 3 outputs, so labels must be 0 to 2",
    ),
    (
        lambda data: changed(targets=torch.arange(40) % 3 - 1),
        "the training data has labels -1 to 1; the model has 3 outputs, so labels must be 0 to 2",
    ),
    (
        lambda data: Pairs(torch.zeros(4)),
        "the training data: an example is a Tensor; a pair (input, label) is needed, a dict of an "
        "input and a label, or a train and an evaluate of the task's own",
    ),
    (
        lambda data: Pairs((torch.zeros(4), "cat")),
        "the training data yields a Tensor and a str; a tensor and a class number are needed",
    ),
    (
        lambda data: Pairs((torch.zeros(4), 1), (torch.zeros(5), 1)),
        "the training data makes no batch: RuntimeError: ",
    ),
]


@pytest.mark.parametrize(("data", "sentence"), DATA)
def test_wrong_training_data(data: Callable[[Path | None], Any], sentence: str) -> None:
    result = checked(replace(GOOD, train_data=data))
    assert sentences(result, Kind.WRONG)[0].startswith(sentence)


class Raising(Dataset[Any]):
    """A data set whose methods fail, except those that are left out."""

    def __init__(self, *names: str, length: int = 40) -> None:
        self.names, self.length = names, length

    def __len__(self) -> int:
        return failing() if "len" in self.names else self.length

    def __getitem__(self, index: int) -> Any:
        return failing() if "item" in self.names else (torch.ones(4), 1)

    @property
    def targets(self) -> Any:
        return failing() if "targets" in self.names else [1] * self.length


@pytest.mark.parametrize(("name", "train", "test"), [
    ("len", "len() of what train_data returned", "len() of what test_data returned failed:"),
    ("item", "taking an example of train_data", "the task's data: Raising[0] failed:"),
    ("targets", "train_data's targets", "the test data's targets failed:"),
])  # fmt: skip
@pytest.mark.parametrize("part", [WHOLE, Partition(0, 2)])
def test_data_sets_that_fail(name: str, train: str, test: str, part: Partition) -> None:
    assert checked(replace(GOOD, train_data=lambda data: Raising()), part).is_ready
    result = checked(replace(GOOD, train_data=lambda data: Raising(name)), part)
    assert sentences(result, Kind.WRONG) == [f"{train} failed: ValueError: no such layer"]
    result = checked(replace(GOOD, test_data=lambda data: Raising(name)), part)
    assert [(f.kind, f.sentence) for f in result.findings] == [
        (Kind.WRONG, f"{test} ValueError: no such layer")
    ]


BROKEN_EXAMPLE = "the task's data: Broken[16] failed: ValueError: no such layer"


class Broken(Dataset[Any]):
    """Its 17th example cannot be read."""

    targets = (0,) * 40

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return failing() if index == 16 else (torch.ones(4), 1)


@pytest.mark.parametrize("part", [WHOLE, Partition(0, 1), Partition(0, 2), Partition(1, 2)])
def test_every_example_is_read(part: Partition) -> None:
    """The one that fails is beyond the first batch, and called by its place in the whole."""
    few = replace(GOOD, train_data=lambda data: Broken(), training=Training(batch_size=8))
    found = sentences(checked(few, part), Kind.WRONG)
    owners = owners_of(Broken(), part.parts, PartitionSettings(), 1)
    expected = [BROKEN_EXAMPLE]
    assert found == (expected if owners[16] == part.index else [])
    tested = checked(replace(GOOD, test_data=lambda data: Broken()))
    assert sentences(tested, Kind.WRONG) == expected


def test_data_sets_that_take_long_are_not_read_to_their_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_data, "EXAMPLES_S", 0.0)
    few = Training(batch_size=8)
    result = checked(replace(GOOD, train_data=lambda data: Broken(), training=few))
    assert result.is_ready
    assert sentences(result, Kind.NOTE) == [
        "train_data: 1 of 40 examples were read in 0 s; the others were not tried"
    ]


def test_data_without_labels_or_parts() -> None:
    plain = TensorDataset(torch.zeros(40, 4), torch.arange(40) % 3)
    result = checked(replace(GOOD, train_data=lambda data: plain))
    assert result.is_ready
    assert sentences(result, Kind.NOTE) == [
        "train_data returns a TensorDataset without an attribute targets: only partition.kind iid "
        "can share it out"
    ]
    own = replace(
        GOOD, train_data=lambda data: [1, 2, 3], train=lambda model, *rest: descend(model)
    )
    sentence = (
        "train_data returns a list, of which --partition and fedaq run cannot give a part to each "
        "client; return Examples or a Dataset"
    )
    assert sentences(checked(own), Kind.DOUBTFUL) == [sentence]
    assert sentences(checked(own, Partition(0, 2)), Kind.WRONG)[0] == sentence


@pytest.mark.parametrize("part", [WHOLE, Partition(0, 2)])
def test_data_in_another_order_each_time(part: Partition) -> None:
    def shuffled(data: Path | None) -> Examples:
        order = torch.from_numpy(np.random.permutation(40))
        return Examples(examples(40).inputs[order], examples(40).targets[order])

    kind = Kind.DOUBTFUL if part == WHOLE else Kind.WRONG
    result = checked(replace(GOOD, train_data=shuffled), part)
    assert sentences(result, kind) == [OTHER_ORDER]

    def other_images(data: Path | None) -> Pairs:
        return Pairs(*[(torch.from_numpy(np.random.rand(4).astype("f4")), 1)] * 3)

    assert sentences(checked(replace(GOOD, train_data=other_images), part), kind) != []


def test_more_parts_than_examples() -> None:
    result = checked(GOOD, Partition(0, 50))
    assert sentences(result, Kind.WRONG) == [
        "--partition: 40 examples cannot be shared among 50 clients"
    ]


# ---- Held back -----------------------------------------------------------------


def test_what_is_held_back_is_tested_and_not_trained_with() -> None:
    sizes = []

    def evaluate(model: Any, data: Any) -> Any:
        sizes.append(len(data))
        return GOOD.evaluate(model, data)

    found = checked(replace(GOOD, evaluate=evaluate, validation_share=0.25))
    assert found.facts is not None
    whole = len(GOOD.train_data(None))
    assert found.facts.examples == whole - round(0.25 * whole)
    assert sizes[-1] == round(0.25 * whole)
