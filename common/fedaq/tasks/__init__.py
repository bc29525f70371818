"""What is learned: a model, its data, and how both sides train and evaluate it.

A task of your own is a `Task` (or a function that returns one) that
``--task package.module:attribute`` names.
"""

import importlib
import sys
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from fedaq.errors import UserError

BUILT_IN = {"digits": "fedaq.tasks.digits:task"}


@dataclass(frozen=True)
class Examples:
    """Inputs and class labels in memory.

    Attributes
    ----------
    inputs : float32, shape (n, ...)
    targets : int64, shape (n,)
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Training:
    """How a client trains in one round: plain SGD."""

    local_epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.05
    momentum: float = 0.5


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on the test data."""

    accuracy: float
    loss: float


def train_classifier(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    """Train on `Examples` with SGD and cross-entropy, and return the mean loss.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    data : Examples
    training : Training
    seed : int
        Decides the order of the examples.
    """
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=training.learning_rate, momentum=training.momentum
    )
    model.train()
    total, seen = 0.0, 0
    for _ in range(training.local_epochs):
        for batch in torch.randperm(len(data), generator=order).split(training.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(data.inputs[batch]), data.targets[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(batch)
            seen += len(batch)
    return total / seen


def evaluate_classifier(model: nn.Module, data: Any) -> Evaluation:
    """Return accuracy and mean cross-entropy on `Examples`."""
    model.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for inputs, targets in zip(data.inputs.split(2000), data.targets.split(2000), strict=True):
            scores = model(inputs)
            right += int((scores.argmax(dim=1) == targets).sum())
            loss += float(nn.functional.cross_entropy(scores, targets, reduction="sum"))
    return Evaluation(right / len(data), loss / len(data))


@dataclass(frozen=True)
class Task:
    """One learning problem.

    Attributes
    ----------
    name : str
        Shown to people.
    model : callable
        Returns a fresh module; the run's seed is set before the call.
    train_data, test_data : callable
        Take the ``--data`` path (or None) and return a data set: `Examples`, or
        whatever sized thing `train` and `evaluate` understand.
    training : Training
        Defaults for the run.
    train, evaluate : callable
        As `train_classifier` and `evaluate_classifier`.
    """

    name: str
    model: Callable[[], nn.Module]
    train_data: Callable[[Path | None], Sized]
    test_data: Callable[[Path | None], Sized]
    training: Training = field(default_factory=Training)
    train: Callable[[nn.Module, Any, Training, int], float] = train_classifier
    evaluate: Callable[[nn.Module, Any], Evaluation] = evaluate_classifier


def subset(data: Sized, indices: NDArray[np.int64]) -> Sized:
    """Return the examples at `indices` of a data set, with its labels if it has them."""
    if isinstance(data, Examples):
        chosen = torch.from_numpy(indices)
        return Examples(data.inputs[chosen], data.targets[chosen])
    if isinstance(data, Dataset):
        return Subset(data, indices.tolist())
    raise UserError(f"a {type(data).__name__} cannot be shared out; return Examples or a Dataset")


def load_task(name: str) -> Task:
    """Return a built-in task, or the one that ``package.module:attribute`` names.

    Raises
    ------
    UserError
        If there is no such task.
    """
    target = BUILT_IN.get(name, name)
    if ":" not in target:
        raise UserError(
            f"task {name!r} is unknown; built in: {', '.join(BUILT_IN)}; "
            "your own: --task package.module:attribute"
        )
    found = load_attribute(target, "task")
    task = found() if callable(found) and not isinstance(found, Task) else found
    if not isinstance(task, Task):
        raise UserError(f"task {name!r} is a {type(task).__name__}, not a fedaq.tasks.Task")
    return task


def load_attribute(target: str, kind: str) -> Any:
    """Import ``package.module:attribute``, from the working directory too.

    Raises
    ------
    UserError
        If there is no such module or attribute.
    """
    module_name, _, attribute = target.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise UserError(f"{kind} {target}: there is no module {error.name!r}") from None
    except AttributeError:
        raise UserError(f"{kind} {target}: {module_name} has no {attribute!r}") from None
