"""The number that a task is about: its name, which way is better, and how it is written."""

import re
from dataclasses import dataclass
from math import isfinite, isnan

ACCURACY, LOSS = "accuracy", "loss"
# What may stand in a table, in a file, in the name of a series.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
A_NAME = "a letter, then letters, digits and _.-, 40 characters at most"


@dataclass(frozen=True)
class Metric:
    """The number that a task is about.

    Attributes
    ----------
    name : str
        One of `Evaluation.metrics`, or ``loss``, the test loss. A letter, then letters, digits
        and ``_.-``, 40 characters at most.
    higher_is_better : bool

    Raises
    ------
    ValueError
        If the name cannot be one, or a loss is to be high.
    """

    name: str = ACCURACY
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and NAME.fullmatch(self.name)):
            raise ValueError(f"{self.name!r} cannot be the name of a metric: {A_NAME}")
        if self.name == LOSS and self.higher_is_better:
            raise ValueError("a loss is to be low: Metric('loss', higher_is_better=False)")

    def reaches(self, value: float, target: float) -> bool:
        """Tell whether a value is as good as a target; NaN never is."""
        return value >= target if self.higher_is_better else value <= target

    def better(self, one: float, other: float) -> float:
        """Return the better one of two values; NaN is worse than any."""
        if isnan(one) or isnan(other):
            return other if isnan(one) else one
        return max(one, other) if self.higher_is_better else min(one, other)

    def written(self, value: float | None) -> str:
        """Return a value with as many digits as people need; None, of a file, was not finite."""
        return written(self.name, value)


def written(name: str, value: float | None) -> str:
    """Return a metric's value with as many digits as people need."""
    if value is None or not isfinite(value):
        return "NaN" if value is None or isnan(value) else str(value)
    return f"{value:.4f}" if name == ACCURACY else f"{value:#.4g}".rstrip(".")
