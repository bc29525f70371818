"""The weighted mean of the updates, as one running sum.

Updates are folded in chunk by chunk as they arrive. The sum is fixed-point in 64-bit
integers, whose addition is associative: the mean does not depend on the order of
arrival, and an update that breaks off midway is taken out again without a trace.
Memory does not grow with the number of clients: what an undo needs is kept in an
unnamed file in the run's folder. What is not a mean is in `fedaq_server.rounds.robust`.
"""

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from math import ldexp, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import coding, kernels
from fedaq.codec.chunks import Chunk
from fedaq.codec.coding import Codes, Content
from fedaq.codec.given import Given
from fedaq.codec.model import Kind, ModelSpec
from fedaq.codec.payload import Payload, Piece
from fedaq.codec.quantizer import LARGEST_VALUE, Floats, Grid, Range
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.rounds.gathered import Gathered
from fedaq_server.rounds.spool import Spool

# What one unit of a statistic weighs in the norm of an update beside one of weights.
STATISTICS_SHARE = 2.0**-6
_SUM_BITS = 60
_MAX_SHIFT = 30

# Values that are looked at together.
_BLOCK_VALUES = 2**18


class Aggregate:
    """The running sum of one round.

    Parameters
    ----------
    spec : ModelSpec
    examples : int
        Training examples of all clients that take part: the largest total weight.
    spool : Path
        Folder for the unnamed files of unfinished updates.
    total : int64, shape (parameters,)
        Memory for the sum.
    """

    def __init__(
        self, spec: ModelSpec, examples: int, spool: Path, total: NDArray[np.int64]
    ) -> None:
        self.spec = spec
        self.spool = spool
        self.examples = 0
        self.total = total
        self.exponent = _SUM_BITS - 16 - examples.bit_length()

    def clear(self) -> None:
        """Begin with a sum of zeros."""
        self.total.fill(0)

    def fold(
        self, update: Payload, examples: int, content: Iterable[tuple[Piece, Codes]], sign: int
    ) -> None:
        """Add codes of an update of this weight (`sign` 1), or take them out again (-1)."""
        for piece, codes in content:
            total, grid = self.total[update.place(piece)], codes.code.grid
            if codes.raw is not None:
                factor = ldexp(float(examples), self.exponent)
                kernels.accumulate_raw(codes.raw, factor, sign, total)
            elif grid is not None:
                terms = fixed_point(grid, examples, self.exponent)
                kernels.unpack_accumulate(
                    codes.data, grid.bits, *terms, sign, total, width=codes.width
                )

    def settle(self, grid: Payload, examples: int) -> None:
        """Take sums of codes for a sum of updates of this weight in all.

        Parameters
        ----------
        grid : Payload
            How all of them were coded. Its steps are powers of two, so nothing is rounded, and
            the sum is what `fold` would have made of the codes.
        examples : int
        """
        for code, part in zip(grid.codes, self.spec.slices, strict=True):
            if code.bits:
                self.total[part] -= code.zero * examples
                self.total[part] *= int(ldexp(code.step, self.exponent))
        self.examples = examples

    def commit(self, spool: Spool, examples: int, client: str) -> None:
        """Let an update count that was folded in whole."""
        self.examples += examples
        spool.close()

    def apply(self, base: Floats, out: Floats, part: slice = slice(None)) -> None:
        """Write ``base + sum_i p_i D_i`` into `out`.

        Parameters
        ----------
        base : float32
            Values at `part` of the flat array of all tensors.
        out : float32, shape (parameters,)
            May be the first half of the memory of the sum if `base` is not and parts come in
            their order: no value is written over a sum that is still to be read.
        part : slice
        """
        scale = ldexp(1.0, -self.exponent) / max(self.examples, 1)
        kernels.add_scaled(base, self.total[part], scale, out[part])

    def mean(self, part: slice) -> Floats:
        """Return ``sum_i p_i D_i`` at a part of the flat array of all tensors."""
        zeros = np.zeros(part.stop - part.start, np.float32)
        scale = ldexp(1.0, -self.exponent) / max(self.examples, 1)
        kernels.add_scaled(zeros, self.total[part], scale, zeros)
        return zeros

    def power(self, part: slice) -> float:
        """Return the sum of the squares of `mean` at a part of the flat array of all tensors."""
        squares = 0.0
        for first in range(part.start, part.stop, _BLOCK_VALUES):
            values = self.mean(slice(first, min(first + _BLOCK_VALUES, part.stop)))
            squares += kernels.statistics(values).squares
        return squares

    def close(self) -> None:
        """Nothing is left open."""


class Contribution:
    """One client's update on its way into the model; ends with `commit` or `undo`.

    Parameters
    ----------
    aggregate : Aggregate or Gathered
    header : Payload
    examples : int
        Weight of the update.
    client : str
        Whose it is.
    known : Given, optional
        What both ends know of its codes.
    statistics_share : float
        What one unit of a statistic weighs in the norm.

    Attributes
    ----------
    received : int
        Code bytes that have arrived.
    payload_bytes : int
        What they took on the wire, entropy-coded or not, with the tensor headers.
    chunks : int
        How many chunks they came in.

    Raises
    ------
    ProtocolError
        If a range reaches beyond `LARGEST_VALUE`.
    """

    def __init__(
        self,
        aggregate: Aggregate | Gathered,
        header: Payload,
        examples: int,
        client: str = "",
        known: Given | None = None,
        statistics_share: float = STATISTICS_SHARE,
    ) -> None:
        for tensor, code in zip(header.spec.tensors, header.codes, strict=True):
            if code.grid is not None:
                # A rounded step may lift the last code a little above the range.
                bounds = code.bounds or Range(code.grid.lo, code.grid.hi)
                check_magnitude(tensor.name, bounds)
        self._aggregate = aggregate
        self._payload = header
        self._examples = examples
        self._client = client
        self._known = known
        self._statistics_share = statistics_share
        self._spool = Spool(header, aggregate.spool)
        self.received = 0
        self.payload_bytes = header.header_bytes
        self.chunks = 0
        self._squares = 0.0

    @property
    def norm(self) -> float:
        """L2 norm of what the codes that have arrived stand for."""
        return sqrt(self._squares)

    @property
    def complete(self) -> bool:
        """Whether every code byte has arrived."""
        return self.received == self._payload.code_bytes

    def add(self, chunk: Chunk) -> None:
        """Fold in one chunk.

        Raises
        ------
        ProtocolError
            If the chunk is not the next one or is malformed; the sum is unchanged.
        OSError
            If it cannot be kept on the disk; the sum is unchanged.
        """
        if chunk.offset != self.received:
            raise ProtocolError(
                pb.REFUSAL_REASON_OUT_OF_ORDER,
                f"a chunk for byte {chunk.offset} arrived; byte {self.received} is next",
            )
        content = coding.decode(self._payload, chunk, self._known)
        squares = self._measured(content)
        # First what may fail: an undo takes out of the sum what was kept, and nothing else.
        self._spool.keep(content)
        self._aggregate.fold(self._payload, self._examples, content, sign=1)
        self.received += chunk.size
        self.payload_bytes += chunk.cost_bytes
        self.chunks += 1
        self._squares += squares

    def commit(self) -> None:
        """Let the update count."""
        self._aggregate.commit(self._spool, self._examples, self._client)

    def undo(self) -> None:
        """Take what was folded in out of the sum."""
        self._aggregate.fold(self._payload, self._examples, self._spool.content(), sign=-1)
        self._spool.close()

    def _share(self, piece: Piece) -> float:
        finely = self._payload.spec.tensors[piece.tensor].kind == Kind.STATISTICS
        return self._statistics_share**2 if finely else 1.0

    def _measured(self, content: Content) -> float:
        """Check raw values; return the sum of the squares of all values."""
        squares = 0.0
        for piece, codes in content:
            if codes.code.grid is not None:
                squares += self._share(piece) * _squares(codes.code.grid, codes)
                continue
            spread = codes.spread()
            check_magnitude(self._payload.spec.tensors[piece.tensor].name, spread)
            squares += self._share(piece) * piece.values * (spread.mean**2 + spread.deviation**2)
        return squares


def _squares(grid: Grid, codes: Codes) -> float:
    """Return the sum of the squares of coded values, exact but for one rounding."""
    total, squares = codes.sums()
    lo, step = Fraction(grid.lo), Fraction(grid.step)
    return float(codes.values * lo**2 + 2 * lo * step * total + step**2 * squares)


# As many as tensors of some clients: each has many chunks.
@lru_cache(maxsize=512)
def fixed_point(grid: Grid, examples: int, exponent: int) -> tuple[int, int, int]:
    """Return ``(origin, slope, shift)`` that map a code to its weighted fixed-point value.

    A code ``c`` stands for ``origin + (slope * c) / 2**shift`` in units of
    ``2**-exponent``, weighted by `examples`. The shift keeps as many bits of the slope as
    64-bit products allow.
    """
    unit = Fraction(2) ** exponent * examples
    origin = round(Fraction(grid.lo) * unit)
    reach = int(Fraction(grid.step) * (2**grid.bits - 1) * unit)
    shift = max(0, min(_MAX_SHIFT, 61 - reach.bit_length()))
    slope = round(Fraction(grid.step) * unit * 2**shift)
    return origin, slope, shift


def check_magnitude(name: str, bounds: Range) -> None:
    """Refuse a range that reaches beyond `LARGEST_VALUE`.

    Raises
    ------
    ProtocolError
        If it does.
    """
    if max(-bounds.lo, bounds.hi) > LARGEST_VALUE:
        raise ProtocolError(
            pb.REFUSAL_REASON_OUT_OF_RANGE,
            f"tensor {name}: the update reaches {max(-bounds.lo, bounds.hi):g}; "
            f"at most {LARGEST_VALUE:g} is accepted",
        )
