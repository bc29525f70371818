"""What a task is made of: examples, and how good a model is."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

from torch import Tensor

from fedaq.metric import ACCURACY


@dataclass(frozen=True)
class Examples:
    """Inputs and targets in memory.

    Attributes
    ----------
    inputs : tensor, shape (n, ...)
        Of the dtype that the model takes; bytes for a model that begins with `Normalise`.
    targets : tensor, shape (n, ...)
        Whatever `train` and `evaluate` take. For a classifier int64 labels, counted from 0,
        shape (n,), or the probability of each class, floating-point, shape (n, classes).
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, init=False)
class Evaluation:
    """How good a model is on the test data.

    ``Evaluation(accuracy, loss)`` of a classifier, ``Evaluation(loss=..., metrics={"mae": ...})``
    of any other model.

    Attributes
    ----------
    loss : float
        Mean over the examples.
    metrics : mapping of str to float
        By name (`Metric.name`), the accuracy among them, 32 at most.
    """

    loss: float
    metrics: Mapping[str, float]

    def __init__(
        self,
        accuracy: float | None = None,
        loss: float | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        if loss is None:
            raise TypeError("an Evaluation needs a loss: Evaluation(loss=..., metrics={...})")
        own = {} if accuracy is None else {ACCURACY: accuracy}
        object.__setattr__(self, "loss", loss)
        object.__setattr__(self, "metrics", {**(metrics or {}), **own})

    @property
    def accuracy(self) -> float:
        """Share of examples that the model gets right, 0 to 1; NaN where nobody counted them."""
        return self.metrics.get(ACCURACY, nan)
