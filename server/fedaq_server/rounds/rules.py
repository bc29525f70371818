"""Rules by which the updates of a round become one, other than their mean.

Median and trimmed mean are taken coordinate by coordinate over the updates of a round (Yin et al.,
arXiv 1803.01498), and every client counts the same: the number of examples is only a claim. A
minority of hostile clients cannot move them far. Sorted values have no order of arrival, so the
result has none.
"""

from functools import partial
from math import ceil
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.quantizer import Floats
from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq.tasks import load_attribute


class Rule(Protocol):
    """How the values of all clients at some coordinates become one value at each.

    It is called for one part of the model after the other, on a thread, and must give the same for
    a coordinate whichever part that is in.
    """

    def __call__(self, updates: Floats, weights: NDArray[np.int64]) -> Floats:
        """Return the values that are added to the model.

        Parameters
        ----------
        updates : float32, shape (clients, values)
            Sorted by the names of the clients; the rule may write into it.
        weights : int64, shape (clients,)
            What their examples count, as limited by `limits.examples_factor`; ones with median and
            trimmed mean.

        Returns
        -------
        float32, shape (values,)
        """


def median(updates: Floats, weights: NDArray[np.int64]) -> Floats:
    """Return the middle value, or the mean of both that are in the middle."""
    return _middle(updates, (len(updates) - 1) // 2)


def trimmed_mean(updates: Floats, weights: NDArray[np.int64], trim: float) -> Floats:
    """Return the mean without the share `trim` of the clients at each end."""
    clients = len(updates)
    return _middle(updates, min((clients - 1) // 2, trimmed(clients, trim)))


def _middle(updates: Floats, cut: int) -> Floats:
    # To select would be slower than to sort along the longer axis, by up to seven times.
    updates.sort(axis=0)
    middle = updates[cut : len(updates) - cut].mean(axis=0, dtype=np.float64)
    return np.asarray(middle, np.float32)


def trimmed(clients: int, trim: float) -> int:
    """Return how many of the clients a trimmed mean leaves out at each end."""
    # 0.1 of 30 clients is 3, though the product of the floats is a little more.
    return ceil(trim * clients - 1e-9)


def rule_of(settings: Settings) -> Rule | None:
    """Return the rule that the settings name; None for the mean.

    Raises
    ------
    UserError
        If there is no such rule.
    """
    name = settings.aggregation
    built_in: dict[str, Rule | None] = {
        "mean": None,
        "median": median,
        "trimmed_mean": partial(trimmed_mean, trim=settings.trim),
    }
    if name in built_in:
        return built_in[name]
    rule = load_attribute(name, "aggregation")
    if not callable(rule):
        raise UserError(
            f"aggregation {name!r} is a {type(rule).__name__}; a function of the updates and their "
            "weights is needed"
        )
    return cast("Rule", rule)


def applied(rule: Rule, updates: Floats, weights: NDArray[np.int64]) -> Floats:
    """Return what a rule gives, if it can be added to a model.

    Raises
    ------
    UserError
        If the rule fails, or gives something else.
    """
    name, (_, values) = getattr(rule, "__name__", type(rule).__name__), updates.shape
    try:
        found = np.asarray(rule(updates, weights), np.float32)
    except Exception as error:
        raise UserError(f"aggregation {name}: {type(error).__name__}: {error}") from error
    if found.shape != (values,):
        raise UserError(
            f"aggregation {name}: returned an array of shape {found.shape} where ({values},) is due"
        )
    return found
