"""The updates of a round, side by side, for a rule that has to see all of them.

They stay in unnamed files, and the model is made block by block, so the memory is that of a block
of every client and not that of a model of every client.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fedaq.codec.coding import Codes
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import Payload, Piece
from fedaq.codec.quantizer import Floats
from fedaq_server.rounds.rules import Rule, applied
from fedaq_server.rounds.spool import Spool

# Values of all clients that are held at once, at least `LEAST_BLOCK` of each.
BLOCK_VALUES, LEAST_BLOCK = 2**20, 2**10


class Gathered:
    """The updates of one round, and what a rule makes of them.

    Parameters
    ----------
    spec : ModelSpec
    spool : Path
        Folder for the unnamed files of the updates.
    rule : Rule
    """

    def __init__(self, spec: ModelSpec, spool: Path, rule: Rule) -> None:
        self.spec = spec
        self.spool = spool
        self._rule = rule
        self._updates: list[tuple[str, int, Spool]] = []

    def clear(self) -> None:
        """Begin with no update."""
        self.close()

    def fold(
        self, update: Payload, examples: int, content: Iterable[tuple[Piece, Codes]], sign: int
    ) -> None:
        """Wait for the end of the round: nothing can be said of one update alone."""

    def commit(self, spool: Spool, examples: int, client: str) -> None:
        """Let an update of this weight count that is in `spool`."""
        self._updates.append((client, examples, spool))
        # In whichever order they came.
        self._updates.sort(key=lambda update: update[:2])

    def apply(self, base: Floats, out: Floats, part: slice = slice(None)) -> None:
        """Write ``base + rule_i D_i`` into `out`.

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
                added = added + self._ruled(tensor, block)
            out[block] = added

    def mean(self, part: slice) -> Floats:
        """Return ``rule_i D_i`` at a part of the flat array of all tensors."""
        values = np.zeros(part.stop - part.start, np.float32)
        if self._updates:
            for tensor, block in self._blocks(part.start, part.stop):
                inside = slice(block.start - part.start, block.stop - part.start)
                values[inside] = self._ruled(tensor, block)
        return values

    def close(self) -> None:
        """Give the files back."""
        for _, _, spool in self._updates:
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
        for row, (_, _, spool) in zip(values, self._updates, strict=True):
            spool.read(tensor, block.start - first, row)
        return values

    def _ruled(self, tensor: int, block: slice) -> Floats:
        weights = np.array([examples for _, examples, _ in self._updates], np.int64)
        return applied(self._rule, self._values(tensor, block), weights)
