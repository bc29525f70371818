"""Masked updates: how a client makes one, and how a server sums them and takes masks off."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedaq.privacy.layout import FIGURE_BITS, Layout, Segment, Words
from fedaq.privacy.masks import Mask, Masks

Sums = NDArray[np.int64]
# Returns fresh words of a segment, given by its number, at a slice.
WordsOf = Callable[[int, slice], Words]


def masked(layout: Layout, words_of: WordsOf, masks: Sequence[Mask]) -> Iterator[bytes]:
    """Yield all that one client sends, a block at a time."""
    streams = Masks(masks)
    for number, segment in enumerate(layout.segments):
        for block in segment.blocks():
            words = words_of(number, block)
            streams.apply(words)
            yield segment.pack(words)


@dataclass(frozen=True)
class MaskedSum:
    """The sum of masked updates.

    Attributes
    ----------
    layout : Layout
    totals : tuple of int64 arrays
        One for each segment, of as many values.
    """

    layout: Layout
    totals: tuple[Sums, ...]

    def add(self, read: Callable[[int], bytes]) -> None:
        """Add one client's; `read` returns its next bytes."""
        for segment, total in zip(self.layout.segments, self.totals, strict=True):
            for block in segment.blocks():
                data = read(segment.block_bytes(block))
                words = segment.unpack(data, block.stop - block.start)
                total[block] += words.view(np.int64) if segment.width == FIGURE_BITS else words

    def unmask(self, masks: Sequence[Mask]) -> None:
        """Take off what masks are left: then `totals` are the sums, modulo their widths.

        Figures are signed.
        """
        streams = Masks(masks)
        for segment, total in zip(self.layout.segments, self.totals, strict=True):
            for block in segment.blocks():
                streams.apply(total[block], segment.dtype)
                _cut(total[block], segment)

    def center(self, noise: int) -> None:
        """Take sums, but those of figures, for numbers from -`noise` on: noise made them so."""
        for segment, total in zip(self.layout.segments, self.totals, strict=True):
            if segment.width < FIGURE_BITS:
                np.add(total, noise, out=total)
                _cut(total, segment)
                np.subtract(total, noise, out=total)


def _cut(total: Sums, segment: Segment) -> None:
    if segment.width < FIGURE_BITS:
        np.bitwise_and(total, 2**segment.width - 1, out=total)
