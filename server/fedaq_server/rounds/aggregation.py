"""The weighted mean of the updates, as one running sum.

Updates are folded in chunk by chunk as they arrive. The sum is fixed-point in 64-bit
integers, whose addition is associative: the mean does not depend on the order of
arrival, and an update that breaks off midway is taken out again without a trace.
Memory does not grow with the number of clients: what an undo needs is kept in an
unnamed file in the run's folder. What is not a mean is in `fedaq_server.rounds.robust`.
"""

import tempfile
from fractions import Fraction
from math import ldexp, sqrt
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import kernels, payload
from fedaq.codec.chunks import Chunk, codes_of
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import Data, Payload, Piece
from fedaq.codec.quantizer import Floats, Grid, Range
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.rounds.robust import Robust

# Updates beyond this magnitude are refused; it fixes the scale of the sum.
LARGEST_VALUE = 2.0**16
_SUM_BITS = 60
_MAX_SHIFT = 30
# Read at once from an unfinished update that is taken out again.
_UNDO_BYTES = 128 * 1024


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
        self, update: Payload, examples: int, pieces: list[Piece], data: Data, sign: int
    ) -> None:
        """Add a chunk of an update of this weight (`sign` 1), or take it out again (-1)."""
        codes = np.frombuffer(data, np.uint8)
        for piece in pieces:
            code = update.codes[piece.tensor]
            start = self.spec.slices[piece.tensor].start + piece.first
            total = self.total[start : start + piece.values]
            if code.grid is None:
                factor = ldexp(float(examples), self.exponent)
                values = payload.raw_values(codes[piece.data])
                kernels.accumulate_raw(values, factor, sign, total)
            else:
                origin, slope, shift = fixed_point(code.grid, examples, self.exponent)
                kernels.unpack_accumulate(
                    codes[piece.data], code.bits, origin, slope, shift, sign, total
                )

    def commit(self, update: Payload, examples: int, spool: IO[bytes]) -> None:
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

    def close(self) -> None:
        """Nothing is left open."""


class Contribution:
    """One client's update on its way into the model; ends with `commit` or `undo`.

    Parameters
    ----------
    aggregate : Aggregate or Robust
    header : Payload
    examples : int
        Weight of the update.

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

    def __init__(self, aggregate: Aggregate | Robust, header: Payload, examples: int) -> None:
        for tensor, code in zip(header.spec.tensors, header.codes, strict=True):
            if code.grid is not None:
                # A rounded step may lift the last code a little above the range.
                bounds = code.bounds or Range(code.grid.lo, code.grid.hi)
                check_magnitude(tensor.name, bounds)
        self._aggregate = aggregate
        self._payload = header
        self._examples = examples
        self._spool = tempfile.TemporaryFile(dir=aggregate.spool)  # noqa: SIM115
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

    def add(self, chunk: Chunk) -> Data:
        """Fold in one chunk and return its code bytes.

        Raises
        ------
        ProtocolError
            If the chunk is not the next one or is malformed; the sum is unchanged.
        """
        if chunk.offset != self.received:
            raise ProtocolError(
                pb.REFUSAL_REASON_OUT_OF_ORDER,
                f"a chunk for byte {chunk.offset} arrived; byte {self.received} is next",
            )
        data = codes_of(self._payload, chunk)
        pieces = list(self._payload.pieces(chunk.offset, len(data)))
        squares = self._measured(pieces, data)
        self._fold(pieces, data, sign=1)
        self._spool.write(data)
        self.received += len(data)
        self.payload_bytes += chunk.cost_bytes
        self.chunks += 1
        self._squares += squares
        return data

    def commit(self) -> None:
        """Let the update count."""
        self._aggregate.commit(self._payload, self._examples, self._spool)

    def undo(self) -> None:
        """Take what was folded in out of the sum."""
        self._spool.seek(0)
        for offset, length in self._payload.chunks(_UNDO_BYTES):
            if offset >= self.received:
                break
            # Both ends of what was received lie between groups, as those of chunks do.
            data = self._spool.read(min(length, self.received - offset))
            self._fold(list(self._payload.pieces(offset, len(data))), data, sign=-1)
        self._spool.close()

    def _fold(self, pieces: list[Piece], data: Data, sign: int) -> None:
        self._aggregate.fold(self._payload, self._examples, pieces, data, sign)

    def _measured(self, pieces: list[Piece], data: Data) -> float:
        """Check raw values; return the sum of the squares of all values."""
        codes, squares = np.frombuffer(data, np.uint8), 0.0
        for piece in pieces:
            code = self._payload.codes[piece.tensor]
            if code.grid is not None:
                squares += _squares(code.grid, codes[piece.data], piece.values)
                continue
            spread = payload.raw_spread(payload.raw_values(codes[piece.data]))
            check_magnitude(self._payload.spec.tensors[piece.tensor].name, spread)
            squares += piece.values * (spread.mean**2 + spread.deviation**2)
        return squares


def _squares(grid: Grid, codes: NDArray[np.uint8], values: int) -> float:
    """Return the sum of the squares of coded values, exact but for one rounding."""
    total, squares = kernels.code_sums(codes, grid.bits, values)
    lo, step = Fraction(grid.lo), Fraction(grid.step)
    return float(values * lo**2 + 2 * lo * step * total + step**2 * squares)


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
