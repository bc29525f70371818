"""The stochastic uniform quantizer and its packed codes.

A tensor with values in ``[lo, hi]`` is coded with ``b`` bits in ``s = 2**b - 1``
steps of ``(hi - lo) / s``. A value is rounded up or down at random so that the
code is unbiased (QSGD, arXiv 1610.02132; FedPAQ, arXiv 1909.13014), and the
codes are packed without gaps (docs/reference/wire-format.md).
"""

from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import kernels
from fedaq.errors import NotFiniteError

MIN_BITS = 1
MAX_BITS = 16
RAW_BITS = 32
# A smaller step has no reciprocal in float32; such a tensor is sent as its least value.
SMALLEST_STEP = float(np.finfo(np.float32).tiny)
# A rounded step may lift the last code above `hi`; this far down it stays a float32.
LARGEST_MAGNITUDE = 2.0**126
# Updates beyond this magnitude are refused; it fixes the scale of their sum.
LARGEST_VALUE = 2.0**16

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Range:
    """The least and the greatest value of a tensor.

    Attributes
    ----------
    lo, hi : float
        Both are float32 values.
    """

    lo: float
    hi: float

    @property
    def width(self) -> float:
        """``R = hi - lo``."""
        return self.hi - self.lo


@dataclass(frozen=True)
class Spread(Range):
    """What is known of a tensor's values; all 0 for one without values.

    Attributes
    ----------
    lo, hi : float
        The least and the greatest value.
    mean, deviation : float
        Their mean and standard deviation.
    magnitude : float
        The mean of their absolute values.
    """

    mean: float
    deviation: float
    magnitude: float = 0.0

    @property
    def is_zero(self) -> bool:
        """Whether every value is 0: then there is nothing to send."""
        return self.lo == 0 == self.hi

    def clipped(self, bits: int) -> Range:
        """Return the range without its outliers: ``b + 2`` deviations around the mean.

        A few far values would stretch the quantization step of all others. The reach grows
        with the bits because the error of clipping must fall as the rounding error does.
        """
        reach = (bits + 2) * self.deviation
        lo = float(np.float32(max(self.lo, self.mean - reach)))
        hi = float(np.float32(min(self.hi, self.mean + reach)))
        return Range(min(lo, hi), max(lo, hi))


@dataclass(frozen=True)
class Key:
    """Names one stream of random numbers: two 32-bit words."""

    word0: int
    word1: int

    @classmethod
    def numbered(cls, number: int) -> "Key":
        """Return the key whose `number` this is."""
        return cls(number & 0xFFFFFFFF, number >> 32)

    @property
    def number(self) -> int:
        """Both words in one of 64 bits."""
        return self.word0 | self.word1 << 32


def derive_key(seed: int, *path: str | int) -> Key:
    """Derive a key from the seed of the run and the path of what it is used for.

    Parameters
    ----------
    seed : int
        Seed of the run.
    *path : str or int
        For example ``"uplink", client, round, tensor``.
    """
    digest = blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return Key(int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))


def derive_seed(seed: int, *path: str | int) -> int:
    """Derive a 63-bit seed for a library's generator, as `derive_key` does."""
    key = derive_key(seed, *path)
    return key.number & (2**63 - 1)


def tensor_spread(values: Floats) -> Spread:
    """Return range, mean, standard deviation and mean magnitude of a float32 array.

    Raises
    ------
    NotFiniteError
        As `value_range`.
    """
    if values.size == 0:
        return Spread(0.0, 0.0, 0.0, 0.0, 0.0)
    found = kernels.statistics(values)
    bounds = _measured_range(found.lo, found.hi)
    mean = found.total / values.size
    variance = max(found.squares / values.size - mean * mean, 0.0)
    return Spread(bounds.lo, bounds.hi, mean, variance**0.5, found.magnitudes / values.size)


def is_width(bits: int) -> bool:
    """Tell whether `bits` is a width the wire knows: 1 to 16, or 32 for raw."""
    return MIN_BITS <= bits <= MAX_BITS or bits == RAW_BITS


def value_range(values: Floats) -> Range:
    """Return the range of a float32 array.

    Raises
    ------
    NotFiniteError
        If a value is NaN, infinite or beyond `LARGEST_MAGNITUDE`.
    """
    if values.size == 0:
        return Range(0.0, 0.0)
    found = kernels.statistics(values)
    return _measured_range(found.lo, found.hi)


def _measured_range(lo: float, hi: float) -> Range:
    if not (isfinite(lo) and isfinite(hi)):
        raise NotFiniteError("a value is NaN or infinite")
    return checked_range(lo, hi)


def checked_range(lo: float, hi: float) -> Range:
    """Return the range if it is one: finite, ordered, within `LARGEST_MAGNITUDE`.

    Raises
    ------
    NotFiniteError
        Otherwise.
    """
    if not (isfinite(lo) and isfinite(hi)):
        raise NotFiniteError(f"the range [{lo}, {hi}] is not finite")
    if lo > hi:
        raise NotFiniteError(f"the range [{lo}, {hi}] is reversed")
    if max(-lo, hi) > LARGEST_MAGNITUDE:
        raise NotFiniteError(f"the range [{lo}, {hi}] reaches beyond 2**126")
    return Range(lo, hi)


def packed_bytes(values: int, bits: int) -> int:
    """Return the bytes that `values` codes of `bits` bits take, raw float32 included."""
    return (values * bits + 7) // 8


def quantization_step(bounds: Range, bits: int) -> float:
    """Return the quantization step ``(hi - lo) / (2**b - 1)``, rounded to float32."""
    return float(np.float32(bounds.width / (2**bits - 1)))


def error_variance_bound(width: float, bits: int) -> float:
    """Return the bound ``R**2 / (4 s**2)`` on the error variance of one value.

    FedAQ, arXiv 2406.18156: a value between two codes one step apart, rounded to
    either without bias, has at most the variance of a fair coin.
    """
    return float((width / (2**bits - 1)) ** 2 / 4)


@dataclass(frozen=True)
class Grid:
    """The values that the codes of a tensor stand for: ``lo + step * code``.

    Attributes
    ----------
    bits : int
        1 to 16; codes are 0 to ``2**bits - 1``.
    lo : float
        Value of code 0, exact in float64.
    step : float
        The quantization step, a float32 value.
    """

    bits: int
    lo: float
    step: float

    @property
    def hi(self) -> float:
        """Value of the last code."""
        return self.lo + self.step * ((1 << self.bits) - 1)


def range_grid(bounds: Range, bits: int) -> Grid:
    """Return the grid of `bits` bits that spans a range."""
    return Grid(bits, bounds.lo, quantization_step(bounds, bits))


def quantize(
    values: Floats,
    grid: Grid,
    key: Key,
    *,
    first: int,
    out: NDArray[np.uint8],
    nearest: bool = False,
    width: int | None = None,
) -> None:
    """Quantize and pack a slice of a tensor.

    Parameters
    ----------
    values : float32, shape (n,)
        The slice. Values beyond the grid get its first or last code.
    grid : Grid
    key : Key
        Random stream of this tensor in this transfer.
    first : int
        Index in the tensor of the first value; a multiple of 8.
    out : uint8, shape (packed_bytes(n, width),)
        Receives the packed codes.
    nearest : bool
        Round to the nearest code: half the error, but biased. For a sender that sends the
        error the next time (error feedback).
    width : int, optional
        Bits from one code to the next, if those are not ``grid.bits``.
    """
    kernels.quantize_pack(
        values,
        first,
        grid.lo,
        1.0 / grid.step if grid.step >= SMALLEST_STEP else 0.0,
        grid.bits,
        nearest,
        key.word0,
        key.word1,
        out,
        width=width,
    )


def dequantize(
    data: NDArray[np.uint8],
    grid: Grid,
    out: Floats,
    *,
    width: int | None = None,
    add: bool = False,
) -> None:
    """Unpack codes and write their values into `out`, float32 of shape (n,), or add them.

    The value of a code is ``float32(lo + step * code)``, computed in float64, in
    which the product is exact. `width` is as `quantize` takes it.
    """
    kernels.unpack_dequantize(data, grid.bits, grid.lo, grid.step, out, width=width, add=add)
