"""What a task is made of: examples, how a client trains, how good a model is."""

from dataclasses import dataclass

from torch import Tensor


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
