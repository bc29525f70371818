"""Bit-lengths from resolutions: the closed form of the energy optimizer."""

from math import ceil, log2

from fedaq.payload import Bits
from fedaq.quantizer import Range


def bits_for_resolution(width: float, resolution: float, min_bits: int, max_bits: int) -> int:
    """Return the fewest bits whose quantization step does not exceed the resolution.

    The KKT conditions of FedAQ (arXiv 2406.18156) give ``b = log2(R / r)`` for
    ``s ~ 2**b`` steps; with the exact ``s = 2**b - 1`` it is ``log2(R / r + 1)``.

    Parameters
    ----------
    width : float
        ``R``, the width of the tensor's range.
    resolution : float
        ``r > 0``, in the unit of the values.
    min_bits, max_bits : int
        Bounds of the result.
    """
    bits = ceil(log2(width / resolution + 1))
    return min(max(bits, min_bits), max_bits)


def resolution_bits(
    ranges: tuple[Range, ...], resolution: float, min_bits: int, max_bits: int
) -> Bits:
    """Apply `bits_for_resolution` to every tensor."""
    return tuple(
        bits_for_resolution(bounds.width, resolution, min_bits, max_bits) for bounds in ranges
    )
