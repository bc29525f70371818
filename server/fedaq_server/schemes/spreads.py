"""What clients report of their tensors, as arrays over clients and tensors; samples of tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats, Spread

Array = NDArray[np.float64]

# Values that show a scheme how long codes will be, of all tensors and of each at least.
SAMPLE, LEAST_SAMPLE = 2**17, 2**8


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


def samples_of(spec: ModelSpec, values_at: Callable[[slice], Floats]) -> tuple[Floats, ...]:
    """Return some values of each tensor, evenly spread over it."""
    parts = spec.slices
    sample = max(SAMPLE // len(parts), LEAST_SAMPLE)
    return tuple(
        # An odd stride, so as not to hit the same few columns of a matrix again and again.
        values_at(slice(part.start, part.stop, (part.stop - part.start) // sample | 1))
        for part in parts
    )


def _numbers(spreads: Sequence[Spread]) -> Array:
    """Return float64 of shape (numbers, tensors)."""
    rows = np.array(list(map(attrgetter(*_NUMBERS), spreads)), np.float64)
    return np.ascontiguousarray(rows.reshape(-1, len(_NUMBERS)).T)
