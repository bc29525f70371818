"""Noise on integers: the discrete Gaussian, drawn from the system's own random numbers.

A value is drawn by inversion of its cumulative distribution, of which `BITS` bits are kept: so it
is as the exact distribution has it, but for less than ``2**-100`` in total variation. Wider noise
than a table holds is the sum of one draw and a whole multiple of another (Micciancio and Walter,
eprint 2017/259).
"""

import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate
from math import ceil, hypot

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
# Returns so many random bytes.
Entropy = Callable[[int], bytes]

# What tests put in its place makes noise that can be repeated, and protects nobody.
entropy: Entropy = os.urandom

# Bits of a probability. The tail beyond `_REACH` deviations has less than the last of them.
BITS = 128
_REACH = 13.5
_EXACT = Context(prec=60)
# The widest noise of one table, and of two.
MOST_TABLE, MOST_DEVIATION = 2.0**12, 2.0**20
# Below, a sum of discrete Gaussians is not near enough to one: at this deviation of each, they
# differ by a factor of ``1 + 1e-67`` at the most (Kairouz et al., arXiv 2102.06387).
LEAST_SHARE = 4.0
# Values that are drawn at once.
BLOCK = 2**16


@dataclass(frozen=True)
class _Table:
    """The cumulative distribution of a discrete Gaussian.

    Attributes
    ----------
    first : int
        The least value.
    upto : list of int
        Of each value but the last: the probability of it and all below, in units of ``2**-BITS``.
    high : uint64, shape (values - 1,)
        Their highest 64 bits.
    """

    first: int
    upto: list[int]
    high: NDArray[np.uint64]


def discrete_gaussian(deviation: float, values: int) -> Integers:
    """Return independent draws, with probabilities in proportion to ``exp(-x**2 / (2 s**2))``.

    Parameters
    ----------
    deviation : float
        ``s``, above 0 and at most `MOST_DEVIATION`.
    values : int

    Returns
    -------
    int64, shape (values,)

    Raises
    ------
    ValueError
        If there is no such noise.
    """
    if not 0 < deviation <= MOST_DEVIATION:
        raise ValueError(f"noise of deviation {deviation}; it is above 0 and {MOST_DEVIATION:g}")
    out = np.empty(values, np.int64)
    factor = ceil(deviation / MOST_TABLE) if deviation > MOST_TABLE else 0
    table = _table(deviation / hypot(1, factor))
    for first in range(0, values, BLOCK):
        part = out[first : first + BLOCK]
        part[:] = _drawn(table, part.size)
        if factor:
            part += factor * _drawn(table, part.size)
    return out


def _drawn(table: _Table, values: int) -> Integers:
    words = np.frombuffer(entropy(8 * values), np.uint64)
    found = np.searchsorted(table.high, words, "right").astype(np.int64)
    # Where the highest bits do not tell on which side of a boundary a number is, more do.
    for at in np.flatnonzero((table.high[found - 1] == words) & (found > 0)):
        rest = int.from_bytes(entropy((BITS - 64) // 8), "little")
        found[at] = bisect_right(table.upto, int(words[at]) << (BITS - 64) | rest)
    return found + table.first


@lru_cache(maxsize=8)
def _table(deviation: float) -> _Table:
    reach = ceil(_REACH * deviation) + 1
    # exp(-x**2 / 2 s**2) = q**(x**2), and each square is the last one and the next odd number.
    exact = _EXACT
    q = exact.exp(exact.divide(Decimal(-1), exact.multiply(2, _squared(deviation))))
    square_of_q = exact.multiply(q, q)
    weights, step = [Decimal(1)], q
    for _ in range(reach):
        weights.append(exact.multiply(weights[-1], step))
        step = exact.multiply(step, square_of_q)
    # As integers: additions of decimals would each be rounded.
    scale = Decimal(2) ** (BITS + 32)
    half = [int(exact.multiply(weight, scale)) for weight in weights]
    sums = list(accumulate([*half[:0:-1], *half]))
    # Values above the last have less than the least probability.
    upto = [(each << BITS) // sums[-1] for each in sums if each < sums[-1]]
    return _Table(-reach, upto, np.array([each >> (BITS - 64) for each in upto], np.uint64))


def _squared(deviation: float) -> Decimal:
    return _EXACT.multiply(Decimal(deviation), Decimal(deviation))
