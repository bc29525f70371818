"""A task, and what both sides do with one."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset, Subset

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import derive_seed
from fedaq.errors import FedaqError, UserError
from fedaq.metric import Metric
from fedaq.modules.base import load_base
from fedaq.modules.signature import spec_of
from fedaq.tasks.classifier import evaluate_classifier, measure_statistics, train_classifier
from fedaq.tasks.context import takes_context
from fedaq.tasks.examples import is_map_style
from fedaq.tasks.parts import Evaluation, Examples
from fedaq.tasks.training import Training


@dataclass(frozen=True)
class Task:
    """One learning problem.

    An exception of yours ends the command, told as the task's; raise `fedaq.errors.UserError` for
    one that a person is to read as it is.

    Attributes
    ----------
    name : str
        Shown to people.
    model : callable
        ``model()`` returns a fresh module whose floating-point tensors are float32. The run's seed
        is set before the call, so that every run and every side builds the same.
    train_data, test_data : callable
        ``train_data(data)`` takes the ``--data`` path (or None) and returns a data set: `Examples`,
        a torch `Dataset` of (input, label), one of Hugging Face with such columns, or whatever
        sized thing `train` and `evaluate` understand. Clients read the one, the server the other.
    training : Training
        Defaults for the run.
    train : callable
        ``train(model, data, training, seed)`` trains the model in place and returns the mean loss;
        `train_classifier` unless given. With a fifth parameter of the name ``context``, it is
        given a `TrainingContext`.
    evaluate : callable
        ``evaluate(model, data)`` returns an `Evaluation`; `evaluate_classifier` unless given.
    classes : sequence of str
        What the model's outputs stand for, in their order, where data decides that. The server
        refuses a client, and a file, of other classes. Empty: the task does not say.
    renamed : mapping of str to str
        Names that tensors had in earlier versions of the task, to those they have today: files
        of those versions are still read.
    tensors : mapping of str to str
        What becomes of tensors of the model, by patterns of their names: ``coded``, ``fine``,
        ``local``, ``server`` or ``frozen`` (docs/reference/tensors.md). Those that fit none are
        judged by the modules they are in; of patterns that fit, the last counts.
    metric : Metric
        The one of `evaluate`'s numbers that is to be reached: what tables, pages and pictures
        show, and what a target is compared with.
    measure : callable, optional
        ``measure(model, data, seed)`` makes the running statistics of the model's normalization
        layers those of the model as it is, on a client's data (docs/reference/tensors.md).
        `measure_statistics` with `train_classifier`; with a `train` of yours, nothing unless given.
    validation_share : float
        Of each client's examples, 0 to 0.5: they are not trained with, and the client reports what
        `evaluate` says of the model that it received, on them, with every round.

    Raises
    ------
    ValueError
        If the share cannot be one.
    """

    name: str
    model: Callable[[], nn.Module]
    train_data: Callable[[Path | None], Sized]
    test_data: Callable[[Path | None], Sized]
    training: Training = field(default_factory=Training)
    train: Callable[..., float] = train_classifier
    evaluate: Callable[[nn.Module, Any], Evaluation] = evaluate_classifier
    classes: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    metric: Metric = field(default_factory=Metric)
    tensors: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[[nn.Module, Any, int], None] | None = None
    validation_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share <= 0.5:
            raise ValueError(
                f"validation_share {self.validation_share}: of a client's examples, 0 to 0.5 may "
                "be held back"
            )

    @property
    def measures(self) -> Callable[[nn.Module, Any, int], None] | None:
        """What measures statistics, if something does."""
        if self.measure is None and self.train is train_classifier:
            return measure_statistics
        return self.measure

    @cached_property
    def takes_context(self) -> bool:
        """Whether `train` has a parameter of the name ``context``."""
        return takes_context(self.train)


class TaskError(UserError):
    """Something is wrong with a task's own code.

    Parameters
    ----------
    task : Task
    told : str
        What, for whoever knows which task it is.
    hint : str
        What else may help.
    """

    def __init__(self, task: Task, told: str, hint: str = "") -> None:
        super().__init__(f"task {task.name}: {told}{hint}")
        self.told = told


@contextmanager
def blamed(task: Task, part: str, hint: str = "") -> Iterator[None]:
    """Let an error in a task's code be told as the task's.

    Raises
    ------
    TaskError
        In the place of whatever the block raised that was not meant for people.
    """
    try:
        yield
    except FedaqError:
        raise
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        said = f"{type(error).__name__}: {line}" if line else type(error).__name__
        raise TaskError(
            task, f"{part} failed: {said}{hint}",
            "; fedaq check-task finds out why, FEDAQ_TRACEBACK=1 shows where",
        ) from error  # fmt: skip


def initial_model(task: Task, seed: int, start_from: Path | None = None) -> nn.Module:
    """Return the model with which a run begins: both sides build it from the run's seed.

    What never travels is read from the file `start_from`, if it has it.

    Raises
    ------
    TaskError
        If it cannot be built.
    UserError
        If the file cannot be read, or is not for this model.
    """
    torch.manual_seed(derive_seed(seed, "model"))
    with blamed(task, "model()"):
        module = task.model()
    if start_from is not None and isinstance(module, nn.Module):
        load_base(module, start_from, task.tensors, task.renamed)
    return module


def read_data(task: Task, part: Literal["train_data", "test_data"], path: Path | None) -> Sized:
    """Return the examples of a task.

    Raises
    ------
    TaskError
        If they cannot be read, or have no length.
    """
    hint = "" if path is not None else "; if it needs a folder, say which with --data"
    with blamed(task, f"{part}({path})", hint):
        found: Sized = getattr(task, part)(path)
    if not hasattr(found, "__len__"):
        raise TaskError(task, f"{part} returned {a_type(found)}; return Examples or a Dataset")
    return found


def a_type(value: object) -> str:
    """Return the type of a value with its article."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def signature_of(task: Task, module: nn.Module) -> ModelSpec:
    """Return the signature of a task's model.

    Raises
    ------
    UserError
        If there is something in it that cannot travel, or nothing that can.
    """
    return spec_of(module, task.classes, task.tensors)


def subset(data: Sized, indices: NDArray[np.int64]) -> Sized:
    """Return the examples at `indices` of a data set, with its labels if it has them."""
    if isinstance(data, Examples):
        chosen = torch.from_numpy(indices)
        return Examples(data.inputs[chosen], data.targets[chosen])
    if is_map_style(data):
        return Subset(cast("Dataset[Any]", data), indices.tolist())
    raise UserError(f"a {type(data).__name__} cannot be shared out; return Examples or a Dataset")
