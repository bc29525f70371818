"""What an entropy-coded tensor costs and loses, by its quantization step.

With an entropy coder any step is possible, and the length of a code depends on the shape
of the values' distribution. It is modelled as generalised normal, density proportional to
``exp(-|x / alpha|**beta)``, whose shape ``beta`` follows from the ratio of the mean
magnitude to the root mean square (S. Mallat, "A theory for multiresolution signal
decomposition", 1989, section IV.B). docs/research/quantizers.md has how well it predicts lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import gamma

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.payload import ZERO, step_bits
from fedaq.codec.quantizer import Spread
from fedaq_server.schemes.spreads import Array, Spreads

# Steps of the tables, in root mean squares of the values. tests/server/test_rates.py holds how
# close the tables come with these steps, shapes and points.
_STEPS: Array = 2.0 ** np.arange(-6.0, 9.25, 0.5)
# Beyond it nothing is known of what a step does.
COARSEST = 2.0**9
_SHAPES: Array = np.geomspace(0.2, 3.0, 15)
_POINTS = 3000
# In root mean squares; of the peakiest shape one value in a million lies beyond.
_REACH = 120.0
_LEAST_RMS = 1e-100
TABLE_BITS = 64.0
# How much longer than expected codes can be thought to be, and how closely that is found.
_LEAST_TIMES, _MOST_TIMES, _HALVINGS = 1 / 16, 16.0, 12
# Codes on each side of zero that are told apart.
_CODES = 2**15
# A tensor header with a step: 11 to 15 bytes (`TensorCode.header_bytes`), mostly 13 or 14; and one
# of a tensor of which nothing is sent.
HEADER_BITS = 8 * 14
ZERO_BITS = 8 * ZERO.header_bytes


@dataclass(frozen=True)
class Rates:
    """Bits and errors per value, for every shape and step.

    Attributes
    ----------
    ratios : float64, shape (shapes,)
        Mean magnitude over root mean square, rising with `beta`.
    bits : float64, shape (shapes, steps)
        Entropy of the codes.
    errors : float64, shape (shapes, steps)
        Mean square error over mean square.
    """

    ratios: Array
    bits: Array
    errors: Array


@dataclass(frozen=True)
class Tensors:
    """Tensors of one sender or many, of which lengths and errors are expected.

    Attributes
    ----------
    elements : float64, shape (tensors,)
        Number of values.
    rms : float64, shape (tensors,) or (senders, tensors)
        Root mean square of the values.
    shapes : float64, as `rms`
        Place of their distribution in the tables.
    table : Rates
    """

    elements: Array
    rms: Array
    shapes: Array
    table: Rates

    def bits(self, step: float | Array) -> Array:
        """Return the expected bits of each tensor's codes.

        Parameters
        ----------
        step : float or float64 array
            Quantization step; of shape (senders, 1) if each sender has its own.
        """
        finer = _finer(_STEPS[0] * self.rms, step)
        return self.elements * (self._look_up(self.table.bits, step) + finer)

    def errors(self, step: float | Array) -> Array:
        """Return the mean square error over the mean square of each tensor, as `bits` does."""
        return self._look_up(self.table.errors, step)

    def _look_up(self, table: Array, step: float | Array) -> Array:
        """Interpolate between shapes, and between the logarithms of steps."""
        # A tensor of zeros, too, without an overflow.
        relative = step / np.maximum(self.rms, _LEAST_RMS)
        column = np.clip(2 * (np.log2(relative) + 6), 0, len(_STEPS) - 1)
        left = np.minimum(column.astype(np.int64), len(_STEPS) - 2)
        above = np.minimum(self.shapes.astype(np.int64), len(_SHAPES) - 2)
        right_share, below_share = column - left, self.shapes - above
        corner = above * len(_STEPS) + left
        entries = table.ravel()

        def across(first: NDArray[np.int64]) -> Array:
            here = entries[first]
            mixed: Array = here + right_share * (entries[first + 1] - here)
            return mixed

        upper = across(corner)
        between: Array = upper + below_share * (across(corner + len(_STEPS)) - upper)
        return between


def tensors(spreads: Spreads, elements: Sequence[int], *, nearest: bool) -> Tensors:
    """Return tensors of one sender or many, rounded to the nearest codes or at random."""
    table = rates(nearest=nearest)
    rms = root_mean_square(spreads)
    ratio = np.divide(spreads.magnitude, rms, out=np.zeros_like(rms), where=rms > 0)
    places = np.interp(ratio, table.ratios, np.arange(len(_SHAPES)))
    return Tensors(np.array(elements, np.float64), rms, places, table)


def root_mean_square(spread: Spread | Spreads) -> Array:
    """Return the root of the mean square of a tensor's values, or of each one's."""
    rms: Array = np.hypot(spread.mean, spread.deviation)
    return rms


@dataclass(frozen=True)
class Codes:
    """What codes take in bits, each of shape (tensors,), or (senders, tensors).

    Attributes
    ----------
    headers : float64
        Whatever the step.
    entropy : float64
        With a coder that wastes nothing.
    packed : float64
        Without a coder, which no coded tensor exceeds.
    """

    headers: Array
    entropy: Array
    packed: Array

    def total(self, longer: Array | float = 1.0) -> Array:
        """Return the bits of each sender's payload, if codes are so much longer than expected.

        Less than 1 is the share of their entropy. More is in the tables of the coder, which are
        as long whatever the step: so many times `TABLE_BITS` more for each tensor.
        """
        tables = TABLE_BITS * np.maximum(np.subtract(longer, 1), 0)
        codes = np.minimum(longer, 1) * self.entropy + tables
        each = self.headers + np.minimum(codes, self.packed)
        total: Array = np.sum(each, axis=-1)
        return total

    def longer(self, bits: float) -> float | None:
        """Return how much longer a payload was, as `total` takes it; None if no codes were sent."""
        if not np.any(self.entropy > 0):
            return None
        # Those that are longest have a ratio each, at which they are packed.
        low, high = _LEAST_TIMES, _MOST_TIMES
        for _ in range(_HALVINGS):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if self.total(middle) >= bits else (middle, high)
        return high


def sample_codes(
    samples: Sequence[Array], elements: Sequence[int], steps: Array | float, *, nearest: bool
) -> Codes:
    """Return what tensors will take at a quantization step, the same for all or one of each.

    Parameters
    ----------
    samples : sequence of float64 arrays
        Some values of each tensor.
    elements : sequence of int
        How many it has.
    """
    steps = np.broadcast_to(steps, len(samples))
    lo = np.array([values.min(initial=0.0) for values in samples])
    hi = np.array([values.max(initial=0.0) for values in samples])
    finest = np.maximum(-lo, hi) / _CODES
    shares = [
        code_weights(values / step, 1.0, nearest=nearest) / max(len(values), 1)
        for values, step in zip(samples, np.maximum(steps, finest), strict=True)
    ]
    sizes = np.array(elements, np.float64)
    bits = sizes * (np.array([entropy(each) for each in shares]) + _finer(finest, steps))
    # What is rounded to zero of all values is not sent.
    is_sent = np.maximum(-lo, hi) >= steps / 2 if nearest else np.full(len(sizes), True)
    return Codes(
        np.where(is_sent, float(HEADER_BITS), ZERO_BITS),
        np.where(is_sent, bits, 0.0),
        np.where(is_sent, sizes * step_bits(lo, hi, steps), 0.0),
    )


def _finer(finest: Array, step: Array | float) -> Array:
    """Return the bits that a value takes more at a step than at the finest that is looked at."""
    finer: Array = np.log2(np.maximum(finest / step, 1.0))
    return finer


def code_weights(positions: Array, weights: Array | float, *, nearest: bool) -> Array:
    """Return what each code weighs, from the least code, or 0, to the greatest.

    Parameters
    ----------
    positions : float64, shape (n,)
        Values over the quantization step.
    weights : float, or float64 of shape (n,)
        What each value weighs; rounded at random, its weight is shared by the codes next to it.
    """
    below = np.floor(positions)
    up = positions - below
    chance = (up >= 0.5).astype(np.float64) if nearest else up
    # Codes too far out for a table, which share the last, are too few to count.
    codes = np.clip(below, -_CODES, _CODES).astype(np.int64)
    codes -= codes.min(initial=0)
    size = int(codes.max(initial=0)) + 2
    lower = np.bincount(codes, weights * (1 - chance), size)
    upper = np.bincount(codes + 1, weights * chance, size)
    total: Array = np.add(lower, upper)
    return total


def entropy(shares: Array) -> float:
    """Return the entropy, in bits, of codes that have these shares of all values."""
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log2(shares)))


@cache
def rates(*, nearest: bool) -> Rates:
    """Return the table for rounding at random, or to the nearest code."""
    # Values of one sign, denser near zero, where most of a peaky distribution lies.
    edges = _REACH * np.linspace(0, 1, _POINTS + 1) ** 3
    x, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    ratios, bits, errors = [], [], []
    for beta in _SHAPES:
        density = np.exp(-((x / _scale(beta)) ** beta))
        weights = density * widths / np.sum(density * widths)
        ratios.append(np.sum(weights * x) / np.sqrt(np.sum(weights * x**2)))
        rows = [_coded(x, weights, step, nearest) for step in _STEPS]
        bits.append([row[0] for row in rows])
        errors.append([row[1] for row in rows])
    return Rates(np.array(ratios), np.array(bits), np.array(errors))


def _scale(beta: float) -> float:
    """Return the `alpha` for which the mean square is 1."""
    return float((gamma(1 / beta) / gamma(3 / beta)) ** 0.5)


def _coded(x: Array, weights: Array, step: float, nearest: bool) -> tuple[float, float]:
    """Return entropy and mean square error of values ``+-x`` at a step."""
    positions = x / step
    shares = code_weights(positions, weights, nearest=nearest)
    # All codes but 0 stand for two values, one of each sign.
    each = np.concatenate((shares[:1], shares[1:] / 2, shares[1:] / 2))
    up = positions - np.floor(positions)
    # Rounded at random, a value errs by `up` or by `1 - up`, each with the chance of the other.
    errors = weights * np.minimum(up, 1 - up) ** 2 if nearest else weights * up * (1 - up)
    return entropy(each), float(np.sum(errors) * step**2)
