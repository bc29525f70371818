"""Payloads: how a model or an update is coded, and where its codes lie.

docs/reference/wire-format.md specifies them. The code bytes of all tensors follow each other, each
tensor starting on a byte boundary. They travel in chunks; a chunk ends between two groups of eight
values or at the end of a tensor, so each chunk can be coded and decoded on its own.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import quantizer
from fedaq.codec.kernels import GROUP
from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import RAW_BITS, SMALLEST_STEP, Floats, Grid, Key, Range, Spread
from fedaq.errors import NotFiniteError, ProtocolError
from fedaq.v1 import federation_pb2 as pb

Bits = tuple[int, ...]
# Packed codes, of which nothing need be copied.
Data = bytes | memoryview
# Quantization steps per tensor; 0: the one that spans the tensor's range.
Steps = tuple[float, ...]

# By how much, and how often, a sender coarsens its steps to stay within a limit before it
# sends nothing. Much coarser ones would bring more noise than the update is worth.
COARSENING = 1.25
COARSENINGS = 8
# One group of the widest codes.
MIN_CHUNK_BYTES = GROUP * quantizer.MAX_BITS // 8


@dataclass(frozen=True)
class TensorCode:
    """How one tensor is coded.

    Attributes
    ----------
    bits : int
        1 to 16; 32 for raw float32; 0 where all values are zero and nothing is sent.
    bounds : Range, optional
        Range that the codes span.
    step : float
        Quantization step of codes around zero instead, a float32 value.
    zero : int
        Which of those codes stands for 0.
    covers : Range, optional
        Range for which a sender chose codes around zero; it does not travel.
    """

    bits: int
    bounds: Range | None = None
    step: float = 0.0
    zero: int = 0
    covers: Range | None = field(default=None, compare=False)

    @cached_property
    def grid(self) -> Grid | None:
        """The values that codes stand for, unless there are none."""
        if self.step:
            return Grid(self.bits, -self.zero * self.step, self.step)
        return None if self.bounds is None else quantizer.range_grid(self.bounds, self.bits)

    @property
    def header_bytes(self) -> int:
        """Bytes of the tensor's header on the wire."""
        return _tensor_header(self).ByteSize() + 2

    @property
    def group_bytes(self) -> int:
        """Bytes of the smallest piece that can be coded on its own."""
        return 4 if self.bits == RAW_BITS else self.bits * GROUP // 8

    @property
    def group_values(self) -> int:
        """Values in that piece."""
        return 1 if self.bits == RAW_BITS else GROUP


ZERO = TensorCode(0)
RAW = TensorCode(RAW_BITS)


@dataclass(frozen=True)
class Piece:
    """A run of values of one tensor: where it lies in the tensor and in a chunk."""

    tensor: int
    first: int
    values: int
    data: slice


@dataclass(frozen=True)
class Payload:
    """The header of a payload and what follows from it."""

    spec: ModelSpec
    codes: tuple[TensorCode, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Offset of each tensor in the code bytes, then the end of the last."""
        sizes = (
            quantizer.packed_bytes(elements, code.bits)
            for elements, code in zip(self.spec.elements, self.codes, strict=True)
        )
        return tuple(np.cumsum((0, *sizes)).tolist())

    @property
    def code_bytes(self) -> int:
        """Bytes of packed codes."""
        return self.starts[-1]

    @property
    def bits(self) -> Bits:
        """Bit-length of each tensor."""
        return tuple(code.bits for code in self.codes)

    @property
    def payload_bytes(self) -> int:
        """Bytes of the tensor headers and of the packed codes: what energy is charged for."""
        return self.header_bytes + self.code_bytes

    @property
    def header_bytes(self) -> int:
        """Bytes of the tensor headers."""
        return sum(code.header_bytes for code in self.codes)

    def sent_bits(self, payload_bytes: int) -> float:
        """Return the mean bits per value of codes that took `payload_bytes` with their headers."""
        if payload_bytes == self.payload_bytes:
            return self.spec.mean_bits(self.bits)
        return 8 * (payload_bytes - self.header_bytes) / self.spec.parameters

    def ever_coarser(
        self, times: float = COARSENING, tries: int = COARSENINGS
    ) -> Iterator["Payload"]:
        """Yield this payload, then with steps so many times wider again and again, then all zeros.

        For a sender that must stay within a limit. Only codes with steps around zero change.
        """
        payload = self
        for _ in range(tries):
            yield payload
            payload = Payload(self.spec, tuple(_coarser(code, times) for code in payload.codes))
        yield Payload(self.spec, tuple(ZERO if code.step else code for code in self.codes))

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Yield the runs of values that a chunk at `offset` holds.

        Raises
        ------
        ProtocolError
            If the chunk is empty, reaches beyond the payload, or does not begin and end
            between groups of values.
        """
        end = offset + length
        if length == 0 or end > self.code_bytes:
            raise ProtocolError(
                pb.REFUSAL_REASON_WRONG_SIZE,
                f"a chunk of {length} bytes at byte {offset} does not fit a payload of "
                f"{self.code_bytes} code bytes",
            )
        tensor = bisect_right(self.starts, offset) - 1
        while offset < end:
            code = self.codes[tensor]
            start, stop = self.starts[tensor], self.starts[tensor + 1]
            if start == stop:
                tensor += 1
                continue
            piece_end = min(end, stop)
            if (offset - start) % code.group_bytes or (
                piece_end != stop and (piece_end - start) % code.group_bytes
            ):
                raise ProtocolError(
                    pb.REFUSAL_REASON_WRONG_SIZE,
                    f"the chunk at byte {end - length} splits a group of values of tensor "
                    f"{self.spec.tensors[tensor].name}",
                )
            first = (offset - start) // code.group_bytes * code.group_values
            last = (
                self.spec.elements[tensor]
                if piece_end == stop
                else (piece_end - start) // code.group_bytes * code.group_values
            )
            if last > first:
                base = end - length
                yield Piece(tensor, first, last - first, slice(offset - base, piece_end - base))
            offset = piece_end
            tensor += 1

    def place(self, piece: Piece) -> slice:
        """Return where a run of values lies in the flat array of all tensors."""
        start = self.spec.slices[piece.tensor].start + piece.first
        return slice(start, start + piece.values)

    def chunks(self, chunk_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield ``(offset, length)`` of chunks of at most `chunk_bytes` bytes.

        Raises
        ------
        ProtocolError
            If a group of values need not fit a chunk.
        """
        if chunk_bytes < MIN_CHUNK_BYTES:
            raise ProtocolError(
                pb.REFUSAL_REASON_WRONG_SIZE,
                f"chunks of {chunk_bytes} bytes are too small; {MIN_CHUNK_BYTES} are the least",
            )
        offset = 0
        while offset < self.code_bytes:
            end = min(offset + chunk_bytes, self.code_bytes)
            if end < self.code_bytes:
                tensor = bisect_right(self.starts, end) - 1
                end -= (end - self.starts[tensor]) % self.codes[tensor].group_bytes
            yield offset, end - offset
            offset = end


def plan_payload(
    spec: ModelSpec, bits: Bits, ranges: Iterable[Range], steps: Steps | None = None
) -> Payload:
    """Return the payload that sends each tensor with the given bits and range.

    Where `steps` has a quantization step, codes lie that far apart around zero, and the
    range decides the bits.
    """
    return Payload(
        spec,
        tuple(
            step_code(bounds, step) if step and b else _range_code(bounds, b)
            for bounds, b, step in zip(ranges, bits, steps or (0.0,) * len(bits), strict=True)
        ),
    )


def _coarser(code: TensorCode, times: float) -> TensorCode:
    if not code.step:
        return code
    assert code.grid is not None
    # Not those of the grid if it can be helped: the last code may lie far beyond the values.
    return step_code(code.covers or Range(code.grid.lo, code.grid.hi), times * code.step)


def coarser_steps(step: float) -> tuple[float, ...]:
    """Return the steps that `Payload.ever_coarser` may take instead of one, itself included."""
    steps = [step]
    for _ in range(1, COARSENINGS):
        steps.append(float(np.float32(COARSENING * steps[-1])))
    return tuple(steps)


def _range_code(bounds: Range, bits: int) -> TensorCode:
    return {0: ZERO, RAW_BITS: RAW}.get(bits) or TensorCode(bits, bounds)


def step_code(bounds: Range, step: float) -> TensorCode:
    """Return the code whose step, around zero, is `step`, with the fewest bits for the range.

    A range of more than ``2**16`` steps gets the finest step that its codes can have.
    """
    step = float(np.float32(max(step, SMALLEST_STEP)))
    while True:
        zero, top = max(0, ceil(-bounds.lo / step)), max(0, ceil(bounds.hi / step))
        bits = max(1, (zero + top).bit_length())
        if bits <= quantizer.MAX_BITS:
            return TensorCode(bits, step=step, zero=zero, covers=bounds)
        step *= 2


def step_bits(
    lo: NDArray[np.float64], hi: NDArray[np.float64], step: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the bits of `step_code` for many ranges and steps at once, of shapes that fit."""
    step = np.maximum(step, SMALLEST_STEP).astype(np.float32).astype(np.float64)
    codes = np.maximum(np.ceil(-lo / step), 0) + np.maximum(np.ceil(hi / step), 0)
    # The exponent is the length of the greatest code. What is longer than the longest gets a
    # coarser step, with which it is just as long.
    bits: NDArray[np.int64] = np.clip(np.frexp(codes)[1], 1, quantizer.MAX_BITS).astype(np.int64)
    return bits


def clipped_ranges(spreads: Iterable[Spread], bits: Bits) -> tuple[Range, ...]:
    """Return the range of every tensor without its outliers (`Spread.clipped`)."""
    return tuple(spread.clipped(b) for spread, b in zip(spreads, bits, strict=True))


def tensor_spreads(spec: ModelSpec, values_at: Callable[[slice], Floats]) -> tuple[Spread, ...]:
    """Return range, mean, deviation and magnitude of every tensor.

    Parameters
    ----------
    spec : ModelSpec
    values_at : callable
        Returns the float32 values at a slice of the flat array of all tensors.

    Raises
    ------
    NotFiniteError
        If a tensor holds NaN or infinity; the message names the tensor.
    """
    ranges = []
    for tensor, part in zip(spec.tensors, spec.slices, strict=True):
        try:
            ranges.append(quantizer.tensor_spread(values_at(part)))
        except NotFiniteError as error:
            raise NotFiniteError(f"tensor {tensor.name}: {error}") from None
    return tuple(ranges)


def transfer_keys(spec: ModelSpec, seed: int, *path: str | int) -> tuple[Key, ...]:
    """Return the random stream of every tensor for one transfer."""
    return tuple(quantizer.derive_key(seed, *path, number) for number in range(len(spec.tensors)))


def to_message(payload: Payload, round_number: int, base: bytes = b"") -> pb.PayloadHeader:
    """Return the header as it travels; `base` is the digest of what a difference is added to."""
    return pb.PayloadHeader(
        round=round_number,
        code_bytes=payload.code_bytes,
        tensors=map(_tensor_header, payload.codes),
        base=base,
    )


def _tensor_header(code: TensorCode) -> pb.TensorHeader:
    if code.bits == 0:
        return pb.TensorHeader(codec=pb.CODEC_ZERO)
    if code.step:
        return pb.TensorHeader(codec=pb.CODEC_STEP, bits=code.bits, step=code.step, zero=code.zero)
    if code.bounds is None:
        return pb.TensorHeader(codec=pb.CODEC_RAW, bits=RAW_BITS)
    return pb.TensorHeader(
        codec=pb.CODEC_UNIFORM, bits=code.bits, lo=code.bounds.lo, hi=code.bounds.hi
    )
