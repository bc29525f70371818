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

from fedaq.codec.quantizer import Spread

Array = NDArray[np.float64]

# Steps of the tables, in root mean squares of the values.
_STEPS: Array = 2.0 ** np.arange(-6.0, 9.25, 0.5)
_SHAPES: Array = np.geomspace(0.2, 3.0, 15)
_POINTS = 3000
# In root mean squares; of the peakiest shape one value in a million lies beyond.
_REACH = 120.0
_LEAST_RMS = 1e-100


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
    elements : float64, shape (n,)
        Number of values.
    rms : float64, shape (n,)
        Root mean square of the values.
    shapes : float64, shape (n,)
        Place of their distribution in the tables.
    table : Rates
    """

    elements: Array
    rms: Array
    shapes: Array
    table: Rates

    def bits(self, step: float) -> Array:
        """Return the expected bits of each tensor's codes at this quantization step."""
        return self.elements * self._look_up(self.table.bits, step)

    def errors(self, step: float) -> Array:
        """Return the mean square error over the mean square of each tensor."""
        return self._look_up(self.table.errors, step)

    def _look_up(self, table: Array, step: float) -> Array:
        """Interpolate between shapes, and between the logarithms of steps."""
        # A tensor of zeros, too, without an overflow.
        relative = step / np.maximum(self.rms, _LEAST_RMS)
        column = np.clip(2 * (np.log2(relative) + 6), 0, len(_STEPS) - 1)
        left = np.minimum(column.astype(np.int64), len(_STEPS) - 2)
        above = np.minimum(self.shapes.astype(np.int64), len(_SHAPES) - 2)
        right_share, below_share = column - left, self.shapes - above

        def across(row: NDArray[np.int64]) -> Array:
            mixed: Array = table[row, left] + right_share * (
                table[row, left + 1] - table[row, left]
            )
            return mixed

        upper = across(above)
        between: Array = upper + below_share * (across(above + 1) - upper)
        return between


def tensors(spreads: Sequence[Spread], elements: Sequence[int], *, nearest: bool) -> Tensors:
    """Return tensors with these spreads, rounded to the nearest codes or at random."""
    table = rates(nearest=nearest)
    rms = np.array([root_mean_square(spread) for spread in spreads])
    magnitudes = np.array([spread.magnitude for spread in spreads])
    ratio = np.divide(magnitudes, rms, out=np.zeros_like(rms), where=rms > 0)
    places = np.interp(ratio, table.ratios, np.arange(len(_SHAPES)))
    return Tensors(np.array(elements, np.float64), rms, places, table)


def root_mean_square(spread: Spread) -> float:
    """Return the root of the mean square of a tensor's values."""
    return float(np.hypot(spread.mean, spread.deviation))


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
    position = x / step
    below = np.floor(position)
    up = position - below
    if nearest:
        chance = (up >= 0.5).astype(np.float64)
        error = np.sum(weights * np.minimum(up, 1 - up) ** 2)
    else:
        chance = up
        error = np.sum(weights * up * (1 - up))
    codes = below.astype(np.int64)
    size = int(codes[-1]) + 2
    shares = np.bincount(codes, weights * (1 - chance), size) + np.bincount(
        codes + 1, weights * chance, size
    )
    # All codes but 0 stand for two values, one of each sign.
    each = np.concatenate((shares[:1], shares[1:] / 2, shares[1:] / 2))
    each = each[each > 0]
    return float(-np.sum(each * np.log2(each))), float(error * step**2)
