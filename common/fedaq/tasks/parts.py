"""What a task is made of: examples, and how good a model is."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Inputs and class labels in memory.

    Attributes
    ----------
    inputs : tensor, shape (n, ...)
        Of the dtype that the model takes; bytes for a model that begins with `Normalise`.
    targets : int64 tensor, shape (n,)
        Labels, counted from 0.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on the test data.

    Attributes
    ----------
    accuracy : float
        Share of examples that it gets right, 0 to 1.
    loss : float
        Mean over the examples.
    """

    accuracy: float
    loss: float
