"""What is masked: integers side by side, each segment in words of its own width, and packed.

Additions are modulo ``2**width``. In memory a segment has the narrowest words that hold it; on the
wire its values lie `width` bits apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import kernels
from fedaq.codec.kernels import GROUP
from fedaq.codec.quantizer import packed_bytes

Words = NDArray[Any]
WIDEST_CODES = 32
# Sums of figures, which travel as they are.
FIGURE_BITS = 64
# Values that are worked on at once: their words stay in the processor's cache.
BLOCK = 2**16


@dataclass(frozen=True)
class Segment:
    """A run of integers of one width.

    Attributes
    ----------
    values : int
    width : int
        In bits, 1 to `WIDEST_CODES`, or `FIGURE_BITS`.
    """

    values: int
    width: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its words in memory."""
        size = next(size for size in (1, 2, 4, 8) if self.width <= 8 * size)
        return np.dtype(f"<u{size}")

    @property
    def packed_bytes(self) -> int:
        """What it takes on the wire."""
        return packed_bytes(self.values, self.width)

    def pack(self, words: Words) -> bytes:
        """Return packed values; what lies above their width is left out.

        Widths above 16 bits have each block's lowest 16 bits first, then what is above them.
        """
        if self.width in (32, FIGURE_BITS):
            return words.tobytes()
        if self.width <= 16:
            return _packed(words.astype("<u2"), self.width)
        low = words.astype("<u2").tobytes()
        return low + _packed((words >> 16).astype("<u2"), self.width - 16)

    def unpack(self, data: bytes | memoryview, values: int) -> Words:
        """Return the words of so many packed values, a block of them."""
        if self.width in (32, FIGURE_BITS):
            return np.frombuffer(data, self.dtype)
        if self.width <= 16:
            return _unpacked(data, self.width, values).astype(self.dtype, copy=False)
        words = np.frombuffer(data, "<u2", values).astype("<u4")
        high = _unpacked(memoryview(data)[2 * values :], self.width - 16, values)
        words |= high.astype("<u4") << 16
        return words

    def blocks(self) -> Iterator[slice]:
        """Yield its values `BLOCK` at a time."""
        for first in range(0, self.values, BLOCK):
            yield slice(first, min(first + BLOCK, self.values))

    def block_bytes(self, block: slice) -> int:
        """Return what a block takes on the wire."""
        return packed_bytes(block.stop - block.start, self.width)


@dataclass(frozen=True)
class Layout:
    """All that one client masks in a round: its codes tensor by tensor, and its figures.

    Attributes
    ----------
    segments : tuple of Segment
    """

    segments: tuple[Segment, ...]

    @cached_property
    def packed_bytes(self) -> int:
        """What it takes on the wire."""
        return sum(segment.packed_bytes for segment in self.segments)


def layout_of(elements: Sequence[int], widths: Sequence[int]) -> Layout:
    """Return the layout of tensors of these widths, 0 for none, and of their figures."""
    tensors = tuple(Segment(n, w) for n, w in zip(elements, widths, strict=True) if w)
    return Layout((*tensors, Segment(1 + len(elements), FIGURE_BITS)))


def _packed(words: Words, width: int) -> bytes:
    # Blocks but the last are whole groups, so each begins at a whole byte.
    out = np.empty(packed_bytes(words.size, width), np.uint8)
    kernels.repack(words.view(np.uint8), 16, width, words.size, out)
    return out.tobytes()


def _unpacked(data: bytes | memoryview, width: int, values: int) -> Words:
    out = np.empty(2 * values, np.uint8)
    kernels.repack(np.frombuffer(data, np.uint8), width, 16, values, out)
    return out.view("<u2")


assert BLOCK % GROUP == 0
