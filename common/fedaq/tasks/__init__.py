"""What is learned: a model, its data, and how both sides train and evaluate it.

A task of your own is a `Task`, or a function of the ``--data`` path that returns one;
``--task package.module:attribute`` names it (docs/tasks.md).
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, default_collate

from fedaq.errors import FedaqError, UserError
from fedaq.quantizer import derive_seed

BUILT_IN = {
    "digits": "fedaq.tasks.digits:task",
    "fashion-mnist": "fedaq.tasks.fashion_mnist:mlp",
    "fashion-mnist-cnn": "fedaq.tasks.fashion_mnist:cnn",
    "images": "fedaq.tasks.images:task",
}
# Large enough to keep the processor busy, small enough for a batch to stay in its cache.
_TEST_BATCH = 250


@dataclass(frozen=True)
class Examples:
    """Inputs and class labels in memory.

    Attributes
    ----------
    inputs : shape (n, ...)
        Of the dtype that the model takes; bytes for a model that begins with `Normalise`.
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


class Normalise(nn.Module):
    """Turn pixels of 0 to 255 into ``(pixel / 255 - mean) / std``, float32.

    As a model's first layer it lets images stay bytes in memory, a quarter of float32,
    and the trained model takes the same pixels wherever it is used.

    Parameters
    ----------
    mean, std : sequence of float
        One per channel, of pixels scaled to 0 to 1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = 1 / (255 * torch.tensor(std).view(-1, 1, 1))
        shift = -torch.tensor(mean).view(-1, 1, 1) * 255 * scale
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return float32 of the same shape, (n, channels, height, width).

        Channels lie last in memory, which makes the convolutions after it a third faster.
        """
        values = pixels.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(self.shift, values, self.scale)


def train_classifier(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    """Train with SGD, momentum and cross-entropy, and return the mean loss.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    data : Examples or Dataset
        A `Dataset` yields (input, label).
    training : Training
    seed : int
        Decides the order of the examples.
    """
    order = torch.Generator().manual_seed(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    velocities = [torch.zeros_like(weight) for weight in weights]
    model.train()
    total, seen = 0.0, 0
    for _ in range(training.local_epochs):
        shuffled = torch.randperm(len(data), generator=order)
        for inputs, targets in _batches(data, shuffled, training.batch_size):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            _descend(weights, velocities, gradients, training)
            total += loss.item() * len(targets)
            seen += len(targets)
    return total / seen


def _descend(
    weights: Iterable[Tensor],
    velocities: Iterable[Tensor],
    gradients: Iterable[Tensor | None],
    training: Training,
) -> None:
    """Take the step of `torch.optim.SGD`, whose import costs a second and 70 MB."""
    with torch.no_grad():
        for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
            if gradient is not None:
                torch.add(gradient, velocity, alpha=training.momentum, out=velocity)
                weight.sub_(velocity, alpha=training.learning_rate)


def evaluate_classifier(model: nn.Module, data: Any) -> Evaluation:
    """Return accuracy and mean cross-entropy on `Examples` or a `Dataset`."""
    model.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for inputs, targets in _batches(data, torch.arange(len(data)), _TEST_BATCH):
            scores = model(inputs)
            right += int((scores.argmax(dim=1) == targets).sum())
            loss += float(nn.functional.cross_entropy(scores, targets, reduction="sum"))
    return Evaluation(right / len(data), loss / len(data))


def _batches(data: Any, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for indices in torch.split(order, size):
        if isinstance(data, Examples):
            yield data.inputs.index_select(0, indices), data.targets.index_select(0, indices)
        else:
            inputs, targets = default_collate([data[index] for index in indices.tolist()])
            yield inputs, targets


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
        Take the ``--data`` path (or None) and return a data set: `Examples`, a
        `Dataset`, or whatever sized thing `train` and `evaluate` understand.
    training : Training
        Defaults for the run.
    train, evaluate : callable
        As `train_classifier` and `evaluate_classifier`.
    classes : sequence of str
        What the model's outputs stand for, in their order, where data decides that. The server
        refuses a client, and a file, of other classes. Empty: the task does not say.
    renamed : mapping of str to str
        Names that tensors had in earlier versions of the task, to those they have today: files
        of those versions are still read.
    """

    name: str
    model: Callable[[], nn.Module]
    train_data: Callable[[Path | None], Sized]
    test_data: Callable[[Path | None], Sized]
    training: Training = field(default_factory=Training)
    train: Callable[[nn.Module, Any, Training, int], float] = train_classifier
    evaluate: Callable[[nn.Module, Any], Evaluation] = evaluate_classifier
    classes: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def blamed(task: Task, part: str) -> Iterator[None]:
    """Let an error in a task's code be told as the task's.

    Raises
    ------
    UserError
        In the place of whatever the block raised that was not meant for people.
    """
    try:
        yield
    except FedaqError:
        raise
    except Exception as error:
        raise UserError(
            f"task {task.name}: {part} failed: {type(error).__name__}: {error}; fedaq check-task "
            "finds out why, FEDAQ_TRACEBACK=1 shows where"
        ) from error


def initial_model(task: Task, seed: int) -> nn.Module:
    """Return the model with which a run begins: both sides build it from the run's seed."""
    torch.manual_seed(derive_seed(seed, "model"))
    return task.model()


def subset(data: Sized, indices: NDArray[np.int64]) -> Sized:
    """Return the examples at `indices` of a data set, with its labels if it has them."""
    if isinstance(data, Examples):
        chosen = torch.from_numpy(indices)
        return Examples(data.inputs[chosen], data.targets[chosen])
    if isinstance(data, Dataset):
        return Subset(data, indices.tolist())
    raise UserError(f"a {type(data).__name__} cannot be shared out; return Examples or a Dataset")


def load_task(name: str, data: Path | None) -> Task:
    """Return a built-in task, or the one that ``package.module:attribute`` names.

    Parameters
    ----------
    name : str
    data : Path, optional
        The ``--data`` path, for a task whose model depends on the data.

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
    if data is not None and not data.exists():
        raise UserError(f"--data {data}: there is no such file or folder")
    found = load_attribute(target, "task")
    try:
        task = found(data) if callable(found) else found
    except FedaqError:
        raise
    except Exception as error:
        raise UserError(f"task {name}: {type(error).__name__}: {error}") from error
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
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{kind} {target}: there is no module {error.name!r}") from error
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{kind} {target}: importing {module_name} failed: {problem}") from error
    if not hasattr(module, attribute):
        raise UserError(f"{kind} {target}: {module_name} has no {attribute!r}")
    return getattr(module, attribute)
