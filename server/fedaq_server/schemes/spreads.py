"""What clients report of their tensors, as arrays over clients and tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.quantizer import Spread

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spreads:
    """The numbers of many `Spread`, all float64 of one shape: (tensors,) or (senders, tensors)."""

    lo: Array
    hi: Array
    mean: Array
    deviation: Array
    magnitude: Array


_NUMBERS = tuple(field.name for field in fields(Spreads))


def arrays(spreads: Sequence[Spread]) -> Spreads:
    """Return the spreads of one sender's tensors, shape (tensors,)."""
    return Spreads(*_numbers(spreads))


def stacked(rows: Sequence[Sequence[Spread]]) -> Spreads:
    """Return the spreads of many senders, each with as many tensors, shape (senders, tensors)."""
    # Before their first update, all have the same.
    numbers = {id(row): _numbers(row) for row in {id(row): row for row in rows}.values()}
    return Spreads(*np.stack([numbers[id(row)] for row in rows], axis=1))


def _numbers(spreads: Sequence[Spread]) -> Array:
    """Return float64 of shape (numbers, tensors)."""
    rows = np.array(list(map(attrgetter(*_NUMBERS), spreads)), np.float64)
    return np.ascontiguousarray(rows.reshape(-1, len(_NUMBERS)).T)
