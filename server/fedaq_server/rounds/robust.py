"""Aggregation that a minority of hostile clients cannot move far: median and trimmed mean.

Both are taken coordinate by coordinate over the updates of a round (Yin et al., arXiv
1803.01498), and every client counts the same: the number of examples is only a claim. The
updates stay in unnamed files, and the model is made block by block, so the memory is that of a
block of every client and not that of a model of every client. Sorted values have no order of
arrival, so the result has none.
"""

from collections.abc import Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np

from fedaq.codec.coding import Codes
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import Payload, Piece
from fedaq.codec.quantizer import Floats
from fedaq_server.rounds.spool import Spool

# Values of all clients that are held at once, at least `LEAST_BLOCK` of each.
BLOCK_VALUES, LEAST_BLOCK = 2**20, 2**10

Middle = Literal["median", "trimmed_mean"]


class Robust:
    """The updates of one round, and what lies in their middle.

    Parameters
    ----------
    spec : ModelSpec
    spool : Path
        Folder for the unnamed files of the updates.
    middle : {"median", "trimmed_mean"}
    trim : float
        Share of the clients that a trimmed mean leaves out at each end.
    """

    def __init__(self, spec: ModelSpec, spool: Path, middle: Middle, trim: float) -> None:
        self.spec = spec
        self.spool = spool
        self._middle = middle
        self._trim = trim
        self._updates: list[Spool] = []

    def clear(self) -> None:
        """Begin with no update."""
        self.close()

    def fold(
        self, update: Payload, examples: int, content: Iterable[tuple[Piece, Codes]], sign: int
    ) -> None:
        """Wait for the end of the round: nothing can be said of one update alone."""

    def commit(self, spool: Spool, examples: int) -> None:
        """Let an update count that is in `spool`."""
        self._updates.append(spool)

    def apply(self, base: Floats, out: Floats, part: slice = slice(None)) -> None:
        """Write ``base + middle_i D_i`` into `out`.

        Parameters
        ----------
        base : float32
            Values at `part` of the flat array of all tensors; may share memory with `out`.
        out : float32, shape (parameters,)
        part : slice
        """
        begin, end, _ = part.indices(self.spec.parameters)
        for tensor, block in self._blocks(begin, end):
            added = base[block.start - begin : block.stop - begin]
            if self._updates:
                added = added + self._middle_of(self._values(tensor, block))
            out[block] = added

    def mean(self, part: slice) -> Floats:
        """Return ``middle_i D_i`` at a part of the flat array of all tensors."""
        middle = np.zeros(part.stop - part.start, np.float32)
        if self._updates:
            for tensor, block in self._blocks(part.start, part.stop):
                inside = slice(block.start - part.start, block.stop - part.start)
                middle[inside] = self._middle_of(self._values(tensor, block))
        return middle

    def close(self) -> None:
        """Give the files back."""
        for spool in self._updates:
            spool.close()
        self._updates.clear()

    def _blocks(self, begin: int, end: int) -> Iterator[tuple[int, slice]]:
        """Yield tensors and slices of the flat array that lie in one of them each."""
        size = max(BLOCK_VALUES // max(len(self._updates), 1), LEAST_BLOCK)
        for tensor, whole in enumerate(self.spec.slices):
            last = min(end, whole.stop)
            for start in range(max(begin, whole.start), last, size):
                yield tensor, slice(start, min(start + size, last))

    def _values(self, tensor: int, block: slice) -> Floats:
        """Return what every client sent for a block: float32, shape (clients, values)."""
        first = self.spec.slices[tensor].start
        values = np.empty((len(self._updates), block.stop - block.start), np.float32)
        for row, spool in zip(values, self._updates, strict=True):
            spool.read(tensor, block.start - first, row)
        return values

    def _middle_of(self, values: Floats) -> Floats:
        clients = len(values)
        cut = (clients - 1) // 2
        if self._middle == "trimmed_mean":
            cut = min(cut, trimmed(clients, self._trim))
        # To select would be slower than to sort along the longer axis, by up to seven times.
        values.sort(axis=0)
        middle = values[cut : clients - cut].mean(axis=0, dtype=np.float64)
        return np.asarray(middle, np.float32)


def trimmed(clients: int, trim: float) -> int:
    """Return how many of the clients a trimmed mean leaves out at each end."""
    # 0.1 of 30 clients is 3, though the product of the floats is a little more.
    return ceil(trim * clients - 1e-9)
