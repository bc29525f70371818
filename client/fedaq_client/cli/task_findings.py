"""What a check of a task finds, and how it says it; the task's own code is called here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from torch import Tensor

from fedaq.codec.model import ModelSpec
from fedaq.errors import FedaqError
from fedaq.tasks import TaskError, Training
from fedaq_client.cli.task_tensors import TensorClass

T = TypeVar("T")


class Kind(StrEnum):
    """How bad a finding is."""

    WRONG = "wrong"
    DOUBTFUL = "doubtful"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One sentence about a task."""

    kind: Kind
    sentence: str


@dataclass(frozen=True)
class Facts:
    """What a task costs, as measured on this machine.

    Attributes
    ----------
    classes : tuple of TensorClass
        Of all tensors.
    examples, batches : int
        Of this client, and of one epoch.
    batch_s : float
        Seconds that one batch took.
    """

    spec: ModelSpec
    classes: tuple[TensorClass, ...]
    training: Training
    examples: int
    batches: int
    batch_s: float


@dataclass
class Checked:
    """What came of a check; there are no facts if it could not come to its end."""

    findings: list[Finding] = field(default_factory=list)
    facts: Facts | None = None

    @property
    def is_ready(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.kind is not Kind.WRONG for finding in self.findings)

    def say(self, kind: Kind, sentence: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, " ".join(sentence.split())))


class BrokenError(Exception):
    """Something without which nothing further can be checked."""


def call(name: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a task's own code under the name that its author knows it by.

    Raises
    ------
    BrokenError
        If it fails.
    """
    try:
        with calling(name):
            return function(*arguments)
    except TaskError as error:
        raise BrokenError(error.told) from None
    except FedaqError as error:
        raise BrokenError(str(error)) from None


@contextmanager
def calling(name: str) -> Iterator[None]:
    """Let fedaq's own errors through; any other is one of the task's code."""
    try:
        yield
    except (FedaqError, BrokenError):
        raise
    except Exception as error:
        raise BrokenError(f"{name} failed: {said(error)}") from None


def said(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def shape_of(value: Tensor) -> str:
    """Return a shape as 3x4."""
    return "x".join(map(str, value.shape)) or "of no dimension"


def listed(names: Sequence[str]) -> str:
    """Return the first two names, and how many more there are."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
