"""Payloads: a model or an update as typed header and packed bytes (docs/reference/wire-format.md).

The code bytes of all tensors follow each other, each tensor starting on a byte
boundary. They travel in chunks; a chunk ends between two groups of eight values
or at the end of a tensor, so each chunk can be coded and decoded on its own.
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
# sends nothing.
COARSENING = 1.25
COARSENINGS = 24
# By how much of a range its reported mean, deviation and magnitude may lie beyond it.
ROUNDING = 1e-3
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

    def ever_coarser(self) -> Iterator["Payload"]:
        """Yield this payload, then with steps a quarter wider again and again, then all zeros.

        For a sender that must stay within a limit. Only codes with steps around zero change.
        """
        payload = self
        for _ in range(COARSENINGS):
            yield payload
            payload = Payload(self.spec, tuple(map(_coarser, payload.codes)))
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


def _coarser(code: TensorCode) -> TensorCode:
    if not code.step:
        return code
    assert code.grid is not None
    # Not those of the grid if it can be helped: the last code may lie far beyond the values.
    return step_code(code.covers or Range(code.grid.lo, code.grid.hi), COARSENING * code.step)


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


def clipped_ranges(spreads: Iterable[Spread], bits: Bits) -> tuple[Range, ...]:
    """Return the range of every tensor without its outliers (`Spread.clipped`)."""
    return tuple(spread.clipped(b) for spread, b in zip(spreads, bits, strict=True))


def tensor_spreads(spec: ModelSpec, values_at: Callable[[slice], Floats]) -> tuple[Spread, ...]:
    """Return range, mean, deviation and magnitude of every tensor.

    Parameters
    ----------
    spec : ModelSpec
    values_at : callable
        As `encode_chunk` takes it.

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


def encode_chunk(
    payload: Payload,
    values_at: Callable[[slice], Floats],
    keys: tuple[Key, ...],
    offset: int,
    length: int,
    *,
    nearest: bool = False,
) -> memoryview:
    """Return one chunk's packed codes of a model, update or difference.

    Parameters
    ----------
    payload : Payload
    values_at : callable
        Returns the float32 values at a slice of the flat array of all tensors.
    keys : tuple of Key
        A random stream per tensor.
    offset, length : int
        The chunk's place in the code bytes.
    nearest : bool
        As `quantizer.quantize` takes it.
    """
    out = np.empty(length, np.uint8)
    for piece in payload.pieces(offset, length):
        code = payload.codes[piece.tensor]
        start = payload.spec.slices[piece.tensor].start + piece.first
        values = values_at(slice(start, start + piece.values))
        if code.grid is None:
            out[piece.data] = values.astype("<f4", copy=False).view(np.uint8)
        else:
            quantizer.quantize(
                values,
                code.grid,
                keys[piece.tensor],
                first=piece.first,
                out=out[piece.data],
                nearest=nearest,
            )
    return out.data


def decode_chunk(
    payload: Payload, offset: int, data: Data, flat: Floats, *, add: bool = False
) -> None:
    """Decode one chunk into its place in the float32 array `flat`, or add it to what is there.

    Raises
    ------
    ProtocolError
        If the chunk is not where it should be, or raw values are not finite.
    """
    codes = np.frombuffer(data, np.uint8)
    for piece in payload.pieces(offset, len(data)):
        code = payload.codes[piece.tensor]
        start = payload.spec.slices[piece.tensor].start + piece.first
        out = flat[start : start + piece.values]
        if code.grid is None:
            values = raw_values(codes[piece.data])
            raw_spread(values)
            np.copyto(out, out + values if add else values)
        elif add:
            values = np.empty_like(out)
            quantizer.dequantize(codes[piece.data], code.grid, values)
            out += values
        else:
            quantizer.dequantize(codes[piece.data], code.grid, out)


def chunk_values(payload: Payload, offset: int, data: Data) -> Iterator[tuple[slice, Floats]]:
    """Yield what a chunk holds: values, and where they lie in the flat array of all tensors."""
    codes = np.frombuffer(data, np.uint8)
    for piece in payload.pieces(offset, len(data)):
        start = payload.spec.slices[piece.tensor].start + piece.first
        grid = payload.codes[piece.tensor].grid
        if grid is None:
            values = raw_values(codes[piece.data])
        else:
            values = np.empty(piece.values, np.float32)
            quantizer.dequantize(codes[piece.data], grid, values)
        yield slice(start, start + piece.values), values


def write_zeros(payload: Payload, flat: Floats) -> None:
    """Write the tensors of which nothing is sent into their places in `flat`."""
    for code, part in zip(payload.codes, payload.spec.slices, strict=True):
        if code == ZERO:
            flat[part] = 0


def raw_values(data: NDArray[np.uint8]) -> Floats:
    """View the bytes of a raw tensor as float32 values; copy them only if they lie askew."""
    return np.require(data.view("<f4"), np.float32, "A")


def raw_spread(values: Floats) -> Spread:
    """Return the spread of raw values that a peer sent.

    Raises
    ------
    ProtocolError
        If one of them is NaN or infinite.
    """
    try:
        return quantizer.tensor_spread(values)
    except NotFiniteError as error:
        raise ProtocolError(pb.REFUSAL_REASON_NOT_FINITE, f"raw tensor: {error}") from None


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


def from_message(spec: ModelSpec, header: pb.PayloadHeader) -> Payload:
    """Read a header that came from a peer or a file, checking every field.

    Raises
    ------
    ProtocolError
        If it does not describe a payload of this model.
    """
    if len(header.tensors) != len(spec.tensors):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"the payload has {len(header.tensors)} tensors, the model {len(spec.tensors)}",
        )
    codes = tuple(
        _tensor_code(tensor.name, message)
        for tensor, message in zip(spec.tensors, header.tensors, strict=True)
    )
    payload = Payload(spec, codes)
    if header.code_bytes != payload.code_bytes:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"the payload announces {header.code_bytes} code bytes; "
            f"its shapes and bits need {payload.code_bytes}",
        )
    return payload


def _tensor_code(name: str, message: pb.TensorHeader) -> TensorCode:
    if message.codec == pb.CODEC_RAW and message.bits == RAW_BITS:
        return RAW
    if message.codec == pb.CODEC_ZERO and message.bits == 0:
        return ZERO
    if message.codec not in (pb.CODEC_UNIFORM, pb.CODEC_STEP) or message.bits == RAW_BITS:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"tensor {name}: codec {message.codec} with {message.bits} bits is unknown",
        )
    if not quantizer.is_width(message.bits):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"tensor {name}: {message.bits} bits; 1 to 16, or 32 for raw, are possible",
        )
    if message.codec == pb.CODEC_STEP:
        return _checked_step(name, message)
    if not (message.HasField("lo") and message.HasField("hi")):
        raise ProtocolError(pb.REFUSAL_REASON_WRONG_SHAPE, f"tensor {name}: its range is missing")
    return TensorCode(message.bits, reported_range(name, message.lo, message.hi))


def _checked_step(name: str, message: pb.TensorHeader) -> TensorCode:
    if not (SMALLEST_STEP <= message.step < float("inf")):
        raise ProtocolError(
            pb.REFUSAL_REASON_NOT_FINITE, f"tensor {name}: a quantization step of {message.step}"
        )
    if message.zero >= 2**message.bits:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"tensor {name}: {message.bits} bits have no code {message.zero} to stand for 0",
        )
    code = TensorCode(message.bits, step=message.step, zero=message.zero)
    assert code.grid is not None
    reported_range(name, code.grid.lo, code.grid.hi)
    return code


def reported_spread(name: str, message: pb.TensorRange) -> Spread:
    """Check a range report of one tensor.

    Raises
    ------
    ProtocolError
        If its range is none, or mean and deviation are not finite or cannot be those of values
        in the range.
    """
    bounds = reported_range(name, message.lo, message.hi)
    positive = (message.deviation, message.magnitude)
    if not (
        abs(message.mean) < float("inf") and all(0 <= value < float("inf") for value in positive)
    ):
        raise ProtocolError(
            pb.REFUSAL_REASON_NOT_FINITE,
            f"tensor {name}: its mean, deviation or magnitude is not finite",
        )
    reach = max(-bounds.lo, bounds.hi)
    slack = ROUNDING * reach
    if not (
        bounds.lo - slack <= message.mean <= bounds.hi + slack
        and message.deviation <= bounds.width + slack
        and message.magnitude <= reach + slack
    ):
        raise ProtocolError(
            pb.REFUSAL_REASON_OUT_OF_RANGE,
            f"tensor {name}: its mean, deviation or magnitude is beyond its range",
        )
    return Spread(bounds.lo, bounds.hi, message.mean, message.deviation, message.magnitude)


def reported_range(name: str, lo: float, hi: float) -> Range:
    """Check a range that a peer sent.

    Raises
    ------
    ProtocolError
        If it is not finite, is reversed or is too wide.
    """
    try:
        return quantizer.checked_range(lo, hi)
    except NotFiniteError as error:
        raise ProtocolError(pb.REFUSAL_REASON_NOT_FINITE, f"tensor {name}: {error}") from None
