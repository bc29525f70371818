"""The energy optimizer: which bit-lengths buy the least quantization noise for a joule.

An item is one tensor that one sender transmits: the model's tensor on the downlink, or a
client's on the uplink. With ``b`` bits its ``d`` values carry the noise
``c d R**2 / (4 (2**b - 1)**2)`` in the convergence bound (docs/research/theory.md) and cost
``e d b`` joules. The noise is convex in ``b``, so the best next bit is always the one with
the largest marginal gain for its joules, and one price of a joule separates the bits that
are worth buying from the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.payload import TensorCode
from fedaq.codec.quantizer import MAX_BITS, Range
from fedaq.errors import FedaqError
from fedaq_server.schemes.spreads import Array, Spreads

# The least bits: the same for every item, or one number for each.
Least = int | NDArray[np.int64]

# More than float precision has; it ends the search earlier.
_BISECTIONS = 80
# Chosen, not measured: a pass is a bit of every item that still fits.
_FILL_PASSES = 64
# A header, and the bits that fill up the last byte of the codes.
_OVERHEAD_BITS = 8 * TensorCode(1, Range(0.0, 1.0)).header_bytes + 7


@dataclass(frozen=True)
class Items:
    """What can be bought: n tensors on their way up or down.

    Attributes
    ----------
    noise : float64, shape (n, 16)
        Noise of the whole tensor in the bound with 1 to 16 bits.
    bit_j : float64, shape (n,)
        Joules for one more bit per value, ``e d``.
    overhead_j : float64, shape (n,)
        Joules for what does not depend on the bits: header and padding.
    """

    noise: Array
    bit_j: Array
    overhead_j: Array

    def energy_j(self, bits: NDArray[np.int64]) -> float:
        """Return the joules of all items at these bits, padding counted in full."""
        # Not `np.dot`: it adds in an order that depends on the processor and on its cores, so that
        # a seed might not give the same plan everywhere, and its threads wait for each other.
        return float(np.sum(self.overhead_j) + np.sum(self.bit_j * bits))

    def sender_j(self, bits: NDArray[np.int64]) -> Array:
        """Return the joules of each sender, shape (senders,), at bits (senders, tensors)."""
        bit_j, overhead_j = self.bit_j.reshape(bits.shape), self.overhead_j.reshape(bits.shape)
        joules: Array = np.sum(overhead_j, axis=1) + np.sum(bit_j * bits, axis=1)
        return joules

    def forecast(self, count: int, scale: float, weight: float) -> "Items":
        """Return items that each stand for `count` later ones.

        Their ranges are `scale` times wider, and their noise counts `weight` times as much.
        """
        return Items(
            self.noise * (count * scale**2 * weight), self.bit_j * count, self.overhead_j * count
        )


@dataclass(frozen=True)
class Allocation:
    """Bits for every item, and the price of a joule that chose them.

    Attributes
    ----------
    bits : int64, shape (n,)
    price : float
        ``lambda``: noise that the last joule removed; 0 where nothing was left to buy.
    energy_j : float
        An upper bound that counts the padding of every tensor in full.
    """

    bits: NDArray[np.int64]
    price: float
    energy_j: float


def make_items(
    errors: Array,
    elements: Sequence[int],
    *,
    coefficients: Array,
    j_per_bit: Array,
    always_bits: Array | float = 0.0,
) -> Items:
    """Return the items of senders, one sender's after the other's.

    Parameters
    ----------
    errors : float64, shape (senders, tensors, 16)
        As `error_table` returns them.
    elements : sequence of int
        ``d_l`` of each tensor.
    coefficients : float64, shape (senders,)
        ``c``: ``a_u p_i**2`` on the uplink, ``a_d`` on the downlink.
    j_per_bit : float64, shape (senders,)
        ``e``, joules for a payload bit.
    always_bits : float, or float64 of shape (tensors,)
        Bits of each tensor that are sent whatever is chosen.
    """
    sizes = np.asarray(elements, np.float64)
    noise = (coefficients[:, None] * sizes)[:, :, None] * errors
    return Items(
        noise=noise.reshape(-1, MAX_BITS),
        bit_j=(j_per_bit[:, None] * sizes).ravel(),
        overhead_j=np.outer(
            j_per_bit, np.broadcast_to(_OVERHEAD_BITS + always_bits, sizes.shape)
        ).ravel(),
    )


def error_table(spreads: Spreads, *, clip: bool) -> Array:
    """Return the bound ``R**2 / (4 s**2)`` on the error variance of one value.

    Parameters
    ----------
    spreads : Spreads
    clip : bool
        Whether ranges are cut at ``b + 2`` standard deviations (`Spread.clipped`).

    Returns
    -------
    float64, shape (..., 16)
        For 1 to 16 bits. With `clip`, ``R`` is the width of the clipped range.
    """
    bits = np.arange(1, MAX_BITS + 1)
    lo, hi = spreads.lo[..., None], spreads.hi[..., None]
    width = hi - lo
    if clip:
        mean, reach = spreads.mean[..., None], (bits + 2) * spreads.deviation[..., None]
        width = np.maximum(np.minimum(hi, mean + reach) - np.maximum(lo, mean - reach), 0.0)
    table: Array = (width / (2.0**bits - 1)) ** 2 / 4
    return table


def join(parts: Sequence[Items]) -> Items:
    """Return the items of several senders or rounds as one set."""
    return Items(
        np.concatenate([part.noise for part in parts]),
        np.concatenate([part.bit_j for part in parts]),
        np.concatenate([part.overhead_j for part in parts]),
    )


def bits_at_price(
    items: Items, price: float, *, min_bits: Least = 1, max_bits: int = MAX_BITS
) -> NDArray[np.int64]:
    """Return the bits worth buying at a price: all whose gain per joule exceeds it.

    This is the KKT solution ``b = log2(R / r)`` of FedAQ (arXiv 2406.18156) with the exact
    ``s = 2**b - 1`` and integer bits.
    """
    return _bits_worth(_gains(items, max_bits), items.bit_j, price, min_bits)


def _gains(items: Items, max_bits: int) -> Array:
    """Return the noise that every bit after the first removes: float64, (n, max_bits - 1)."""
    gains: Array = items.noise[:, : max_bits - 1] - items.noise[:, 1:max_bits]
    return gains


def _bits_worth(gains: Array, bit_j: Array, price: float, min_bits: Least) -> NDArray[np.int64]:
    worth = gains > price * bit_j[:, None]
    bits: NDArray[np.int64] = np.maximum(1 + np.count_nonzero(worth, axis=1), min_bits)
    return bits


def allocate(
    items: Items, budget_j: float, *, min_bits: Least = 1, max_bits: int = MAX_BITS
) -> Allocation:
    """Spend a budget on bits so that the least noise is left.

    Optimal where a bit costs the same for every item; elsewhere within the gain of one bit.

    Raises
    ------
    FedaqError
        If the budget does not pay for `min_bits` everywhere.
    """
    least_j = items.energy_j(np.broadcast_to(min_bits, items.bit_j.shape))
    if least_j > budget_j:
        raise FedaqError(f"{budget_j:.4g} J do not pay for the least bits; {least_j:.4g} J would")
    price, bits = _price(items, budget_j, min_bits, max_bits)
    _fill(items, bits, budget_j - items.energy_j(bits), max_bits)
    return Allocation(bits, price, items.energy_j(bits))


def _price(
    items: Items, budget_j: float, min_bits: Least, max_bits: int
) -> tuple[float, NDArray[np.int64]]:
    """Return the lowest price, to float precision, within the budget, and the bits it buys."""
    gains, bit_j = _gains(items, max_bits), items.bit_j
    most = _bits_worth(gains, bit_j, 0.0, min_bits)
    if items.energy_j(most) <= budget_j:
        return 0.0, most
    least = np.broadcast_to(min_bits, most.shape)
    fewest = least.astype(np.int64)
    low, high = _price_bounds(gains, bit_j)
    overhead_j = np.sum(items.overhead_j)
    rows = np.arange(len(most))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        # Most items soon have the same bits at both ends, and at every price between them.
        differ = np.flatnonzero(most[rows] > fewest[rows])
        if 2 * len(differ) < len(rows):
            rows, least = rows[differ], least[differ]
            gains, bit_j = gains[differ], bit_j[differ]
        bits = fewest.copy()
        bits[rows] = _bits_worth(gains, bit_j, 2.0**middle, least)
        if overhead_j + np.sum(items.bit_j * bits) <= budget_j:
            high, fewest = middle, bits
        else:
            low, most = middle, bits
    return float(2.0**high), fewest


def _price_bounds(gains: Array, bit_j: Array) -> tuple[float, float]:
    """Return logarithms of two prices: at one all bits with a gain are bought, at the other none.

    Dividing by the joules of a bit changes no order within an item.
    """
    least_j = np.maximum(bit_j, np.finfo(np.float64).tiny)
    smallest = np.min(gains, axis=1, where=gains > 0, initial=np.inf) / least_j
    largest = np.max(gains, axis=1) / least_j
    return log2(float(smallest.min())) - 1, log2(float(largest.max())) + 1


def _fill(items: Items, bits: NDArray[np.int64], left_j: float, max_bits: int) -> None:
    """Spend what the price left over on the best next bits that still fit, in place."""
    rows = np.arange(len(bits))
    for _ in range(_FILL_PASSES):
        open_rows = rows[(bits < max_bits) & (items.bit_j <= left_j)]
        now = bits[open_rows]
        gain = items.noise[open_rows, now - 1] - items.noise[open_rows, now]
        open_rows, gain = open_rows[gain > 0], gain[gain > 0]
        if not len(open_rows):
            return
        order = open_rows[np.argsort(-gain / items.bit_j[open_rows], kind="stable")]
        spent = np.cumsum(items.bit_j[order])
        bought = order[spent <= left_j]
        bits[bought] += 1
        left_j -= float(items.bit_j[bought].sum())


def resolution(price: float, j_per_bit: float, coefficient: float) -> float:
    """Return the quantization step at a price, ``r = sqrt(lambda e / (2 ln2 c))``.

    The closed form for ``s ~ 2**b`` and real bits (docs/research/theory.md); bits follow as
    ``log2(R / r)``. ``c = coefficient / 4`` is what stands before ``R**2 / s**2``.

    Parameters
    ----------
    price : float
        ``lambda``, as `allocate` returns it.
    j_per_bit : float
        ``e``.
    coefficient : float
        ``a``, as `make_items` takes them.
    """
    return float(resolutions(price, np.array(j_per_bit), np.array(coefficient)))


def resolutions(price: float, j_per_bit: Array, coefficients: Array) -> Array:
    """Return the `resolution` of many senders, float64 of any one shape."""
    steps: Array = np.sqrt(price * j_per_bit / (2 * np.log(2) * coefficients / 4))
    return steps


def bits_for_resolution(
    width: float | Array, step: float, min_bits: int, max_bits: int
) -> NDArray[np.int64]:
    """Return the fewest bits whose quantization step does not exceed `step`.

    ``b = log2(R / r)`` with the exact ``s = 2**b - 1`` steps: ``log2(R / r + 1)``.

    Parameters
    ----------
    width : float or float64 array
        ``R``, the width of the range of a tensor, or of many.
    step : float
        ``r > 0``, in the unit of the values.
    min_bits, max_bits : int
        Bounds of the result.
    """
    fraction, exponent = np.frexp(width / step + 1)
    # Of a power of two, the exponent is one above its logarithm.
    bits: NDArray[np.int64] = np.clip(exponent - (fraction == 0.5), min_bits, max_bits)
    return bits


def resolution_bits(
    spreads: Spreads, step: float, *, clip: bool, min_bits: int, max_bits: int
) -> NDArray[np.int64]:
    """Return for every tensor the fewest bits whose quantization step is at most `step`.

    Returns
    -------
    int64, shaped as the spreads are
    """
    if not clip:
        return bits_for_resolution(spreads.hi - spreads.lo, step, min_bits, max_bits)
    bits = np.full(spreads.lo.shape, max_bits)
    for fewer in range(max_bits - 1, min_bits - 1, -1):
        bits[_clipped_width(spreads, fewer) / (2**fewer - 1) <= step] = fewer
    return bits


def _clipped_width(spreads: Spreads, bits: int) -> Array:
    """Return the widths of `Spread.clipped`, whose ends are float32 values."""
    reach = (bits + 2) * spreads.deviation
    lo = np.maximum(spreads.lo, spreads.mean - reach).astype(np.float32)
    hi = np.minimum(spreads.hi, spreads.mean + reach).astype(np.float32)
    return np.abs(hi.astype(np.float64) - lo.astype(np.float64))
