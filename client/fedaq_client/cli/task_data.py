"""What is wrong with a task's data: as a whole, and one batch of it."""

import time
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from fedaq.errors import FedaqError, UserError
from fedaq.settings import Settings
from fedaq.tasks import Examples, Task, initial_model, read_data, subset
from fedaq.tasks.classifier import as_labels
from fedaq.tasks.examples import example, is_map_style, pair_of
from fedaq.tasks.partition import WHOLE, Partition, labels_of
from fedaq.tasks.task import a_type
from fedaq_client.cli.task_findings import (
    BrokenError,
    Checked,
    Kind,
    call,
    calling,
    said,
    shape_of,
)
from fedaq_client.sharing import local_data

# For reading the examples of one data set.
EXAMPLES_S = 5.0


def check_data(task: Task, settings: Settings, part: Partition, checked: Checked) -> Sized:
    """Check the training data, and return this client's part of it.

    Raises
    ------
    BrokenError
        If there is none to go on with.
    """
    everything = load(task, "train_data", settings)
    if length_of(everything, "train_data") == 0:
        raise BrokenError("train_data is empty; at least one example is needed")
    check_lengths(everything, "train_data")
    try:
        with calling("train_data's Dataset"):
            subset(everything, np.arange(1))
    except UserError:
        checked.say(
            Kind.WRONG if part != WHOLE else Kind.DOUBTFUL,
            f"train_data returns {a_type(everything)}, of which --partition and fedaq run cannot "
            "give a part to each client; return Examples or a Dataset",
        )
        return everything
    _check_order(everything, load(task, "train_data", settings), part, checked)
    try:
        with calling("train_data's targets"):
            labels_of(everything)
    except UserError:
        checked.say(
            Kind.NOTE,
            f"train_data returns {a_type(everything)} without an attribute targets: only "
            "partition.kind iid can share it out",
        )
    try:
        with calling("train_data's Dataset"):
            mine = local_data(everything, part, settings.partition, settings.seed)
    except FedaqError as error:
        raise BrokenError(f"--partition: {error}") from None
    if len(mine) == 0:
        raise BrokenError("--partition: no example is left for this client")
    check_examples(mine, "train_data", checked)
    return mine


def load(task: Task, part: Literal["train_data", "test_data"], settings: Settings) -> Sized:
    """Return what a task reads.

    Raises
    ------
    BrokenError
        If it fails, or has no length.
    """
    return call(part, read_data, task, part, settings.data)


def check_examples(data: Sized, name: str, checked: Checked) -> None:
    """Read the examples of a data set one after the other, as many as there is time for.

    Raises
    ------
    BrokenError
        If one of them fails.
    """
    if isinstance(data, Examples) or not is_map_style(data):
        return
    ends_at = time.monotonic() + EXAMPLES_S
    for index in range(len(data)):
        call(f"{name}", example, data, index)
        if time.monotonic() > ends_at:
            checked.say(
                Kind.NOTE,
                f"{name}: {index + 1:,} of {len(data):,} examples were read in {EXAMPLES_S:g} s; "
                "the others were not tried",
            )
            return


def length_of(data: Sized, name: str) -> int:
    """Return how many examples there are, as the task's own code counts them."""
    return call(f"len() of what {name} returned", len, data)


def check_lengths(data: Sized, name: str) -> None:
    """Check that each input has its target."""
    if isinstance(data, Examples) and len(data.inputs) != len(data.targets):
        raise BrokenError(
            f"{name}: {len(data.inputs)} inputs and {len(data.targets)} targets; each input "
            "needs one target"
        )


def _check_order(data: Sized, again: Sized, part: Partition, checked: Checked) -> None:
    """Clients find their parts by number, so all must have the same order."""
    same = len(data) == len(again)
    if same and isinstance(data, Examples) and isinstance(again, Examples):
        same = torch.equal(data.targets, again.targets) and _equal(data.inputs, again.inputs)
    elif same:
        ends = (0, len(data) - 1)
        with calling("taking an example of train_data"):
            one, other = ([d[i] for i in ends] for d in (data, again))  # type: ignore[index]
        same = all(map(_equal, _tensors(one), _tensors(other)))
    if not same:
        checked.say(
            Kind.WRONG if part != WHOLE else Kind.DOUBTFUL,
            "train_data gives other examples or another order when it is called again: with "
            "--partition some would go to two clients and some to none; sort file names, and "
            "draw nothing at random",
        )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(
            torch.equal(one.nan_to_num(), other.nan_to_num())
            if one.is_floating_point()
            else torch.equal(one, other)
        )
    return True


def _tensors(items: Sequence[Any]) -> list[Any]:
    values: list[Any] = []
    for item in items:
        if isinstance(item, tuple | list | Mapping):
            values += item.values() if isinstance(item, Mapping) else item
    return values


def first_of(data: Sized, count: int) -> Sized:
    """Return the first examples, or all of them if no part can be taken."""
    try:
        return subset(data, np.arange(min(count, len(data))))
    except UserError:
        return data


# ---- One batch -----------------------------------------------------------------


def check_batch(task: Task, seed: int, data: Sized, few: Sized, part: str) -> None:
    """Check what `train_classifier` and `evaluate_classifier` take for granted."""
    inputs, targets = _batch(few, part)
    # As it is tested: whether it trains on so few examples is tried later.
    module = initial_model(task, seed).eval()
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        raise BrokenError(f"the {part} data has inputs with NaN or infinity; leave them out")
    try:
        with torch.no_grad():
            scores = module(inputs)
    except Exception as error:
        raise BrokenError(_why_not(module, inputs, error)) from None
    count = len(inputs)
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != count:
        got = f"{shape_of(scores)}" if isinstance(scores, Tensor) else a_type(scores)
        raise BrokenError(
            f"the model gives {got} for {count} inputs; {count}x(number of classes) is needed, "
            "or a train and an evaluate of the task's own"
        )
    classes = scores.shape[1]
    labels = _labels(data, targets, part)
    if targets.is_floating_point() or targets.is_complex():
        labels = torch.arange(classes)  # a probability for each
        fits = targets.dtype == scores.dtype and targets.shape == scores.shape
    else:
        fits = as_labels(targets).shape == (count,)
    if not fits:
        raise BrokenError(
            f"the {part} data has labels {targets.dtype} {shape_of(targets)} for {count} inputs; "
            f"int64 {count} is needed, one class number each, or {scores.dtype} {shape_of(scores)},"
            " a probability for each class; for anything else give the task its own train and "
            "evaluate"
        )
    if task.classes and len(task.classes) != classes:
        raise BrokenError(
            f"the task states {len(task.classes)} classes; the model has {classes} outputs, one "
            "for each is needed"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise BrokenError(
            f"the {part} data has labels {int(labels.min())} to {int(labels.max())}; the model "
            f"has {classes} outputs, so labels must be 0 to {classes - 1}"
        )
    if not torch.isfinite(scores).all():
        raise BrokenError("the model gives NaN or infinity before any training; look at the inputs")


def _batch(few: Any, part: str) -> tuple[Tensor, Tensor]:
    if isinstance(few, Examples):
        return few.inputs, few.targets
    items = [call(f"{part} data", example, few, index) for index in range(len(few))]
    try:
        inputs, targets = default_collate([pair_of(item) for item in items])
    except UserError as error:
        raise BrokenError(f"the {part} data: {error}") from None
    except Exception as error:
        raise BrokenError(f"the {part} data makes no batch: {said(error)}") from None
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        raise BrokenError(
            f"the {part} data yields {' and '.join(map(a_type, pair_of(items[0])))}; a tensor and "
            "a class number are needed"
        )
    return inputs, targets


def _labels(data: Any, targets: Tensor, part: str) -> Tensor:
    """Return all labels, where that costs nothing; else those of one batch."""
    if isinstance(data, Examples):
        return data.targets
    try:
        with calling(f"the {part} data's targets"):
            return torch.from_numpy(labels_of(data))
    except UserError:
        return targets


def _why_not(module: nn.Module, inputs: Tensor, error: Exception) -> str:
    if inputs.dtype != torch.float32:
        hint = f"inputs are {inputs.dtype} and weights float32: let train_data return .float()"
        if inputs.dtype == torch.uint8:
            hint += ", or let the model begin with fedaq.tasks.Normalise"
        return f"the model does not take its inputs: {hint} ({said(error)})"
    return (
        f"the model does not take its inputs, float32 {shape_of(inputs)}, the first number being "
        f"the batch: {said(error)}"
    )
