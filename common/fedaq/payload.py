"""Payloads: a model or an update as typed header and packed bytes (docs/wire-format.md).

The code bytes of all tensors follow each other, each tensor starting on a byte
boundary. They travel in chunks; a chunk ends between two groups of eight values
or at the end of a tensor, so each chunk can be coded and decoded on its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedaq import quantizer
from fedaq.errors import NotFiniteError, ProtocolError
from fedaq.kernels import GROUP
from fedaq.model import ModelSpec
from fedaq.quantizer import RAW_BITS, Floats, Key, Range, Spread
from fedaq.v1 import federation_pb2 as pb

Bits = tuple[int, ...]

# One group of the widest codes.
MIN_CHUNK_BYTES = GROUP * quantizer.MAX_BITS // 8


def header_bytes(bits: int) -> int:
    """Return the bytes of one tensor's header on the wire: codec, bits and range."""
    return 6 if bits == RAW_BITS else 16


@dataclass(frozen=True)
class TensorCode:
    """How one tensor is coded: bit-length, and the range unless it is raw."""

    bits: int
    bounds: Range | None

    @property
    def group_bytes(self) -> int:
        """Bytes of the smallest piece that can be coded on its own."""
        return 4 if self.bits == RAW_BITS else self.bits * GROUP // 8

    @property
    def group_values(self) -> int:
        """Values in that piece."""
        return 1 if self.bits == RAW_BITS else GROUP


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
        return payload_bytes(self.spec, self.bits)

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
        tensor = int(np.searchsorted(self.starts, offset, side="right")) - 1
        while offset < end:
            code = self.codes[tensor]
            start, stop = self.starts[tensor], self.starts[tensor + 1]
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
                tensor = int(np.searchsorted(self.starts, end, side="right")) - 1
                end -= (end - self.starts[tensor]) % self.codes[tensor].group_bytes
            yield offset, end - offset
            offset = end


def payload_bytes(spec: ModelSpec, bits: Bits) -> int:
    """Return the bytes of tensor headers and packed codes at these bits."""
    return sum(
        header_bytes(b) + quantizer.packed_bytes(elements, b)
        for elements, b in zip(spec.elements, bits, strict=True)
    )


def plan_payload(spec: ModelSpec, bits: Bits, ranges: Iterable[Range]) -> Payload:
    """Return the payload that sends each tensor with the given bits and range."""
    return Payload(
        spec,
        tuple(
            TensorCode(b, None if b == RAW_BITS else bounds)
            for b, bounds in zip(bits, ranges, strict=True)
        ),
    )


def clipped_ranges(spreads: Iterable[Spread], bits: Bits) -> tuple[Range, ...]:
    """Return the range of every tensor without its outliers (`Spread.clipped`)."""
    return tuple(spread.clipped(b) for spread, b in zip(spreads, bits, strict=True))


def tensor_spreads(spec: ModelSpec, flat: Floats) -> tuple[Spread, ...]:
    """Return range, mean and deviation of every tensor.

    Raises
    ------
    NotFiniteError
        If a tensor holds NaN or infinity; the message names the tensor.
    """
    ranges = []
    for tensor, values in zip(spec.tensors, spec.split(flat), strict=True):
        try:
            ranges.append(quantizer.tensor_spread(values))
        except NotFiniteError as error:
            raise NotFiniteError(f"tensor {tensor.name}: {error}") from None
    return tuple(ranges)


def transfer_keys(spec: ModelSpec, seed: int, *path: str | int) -> tuple[Key, ...]:
    """Return the random stream of every tensor for one transfer."""
    return tuple(quantizer.derive_key(seed, *path, number) for number in range(len(spec.tensors)))


def encode_chunk(
    payload: Payload, flat: Floats, keys: tuple[Key, ...], offset: int, length: int
) -> bytes:
    """Code one chunk of a model or update held in the float32 array `flat`."""
    out = np.empty(length, np.uint8)
    for piece in payload.pieces(offset, length):
        code = payload.codes[piece.tensor]
        start = payload.spec.slices[piece.tensor].start + piece.first
        values = flat[start : start + piece.values]
        if code.bounds is None:
            out[piece.data] = values.astype("<f4", copy=False).view(np.uint8)
        else:
            quantizer.quantize(
                values,
                code.bounds,
                code.bits,
                keys[piece.tensor],
                first=piece.first,
                out=out[piece.data],
            )
    return out.tobytes()


def decode_chunk(payload: Payload, offset: int, data: bytes, flat: Floats) -> None:
    """Decode one chunk into its place in the float32 array `flat`.

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
        if code.bounds is None:
            values = raw_values(codes[piece.data])
            raw_range(values)
            out[:] = values
        else:
            quantizer.dequantize(codes[piece.data], code.bounds, code.bits, out)


def raw_values(data: NDArray[np.uint8]) -> Floats:
    """View the bytes of a raw tensor as float32 values; copy them only if they lie askew."""
    return np.require(data.view("<f4"), np.float32, "A")


def raw_range(values: Floats) -> Range:
    """Return the range of raw values that a peer sent.

    Raises
    ------
    ProtocolError
        If one of them is NaN or infinite.
    """
    try:
        return quantizer.value_range(values)
    except NotFiniteError as error:
        raise ProtocolError(pb.REFUSAL_REASON_NOT_FINITE, f"raw tensor: {error}") from None


def to_message(payload: Payload, round_number: int) -> pb.PayloadHeader:
    """Return the header as it travels."""
    header = pb.PayloadHeader(round=round_number, code_bytes=payload.code_bytes)
    for code in payload.codes:
        if code.bounds is None:
            header.tensors.add(codec=pb.CODEC_RAW, bits=RAW_BITS)
        else:
            header.tensors.add(
                codec=pb.CODEC_UNIFORM, bits=code.bits, lo=code.bounds.lo, hi=code.bounds.hi
            )
    return header


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
        return TensorCode(RAW_BITS, None)
    if message.codec != pb.CODEC_UNIFORM or message.bits == RAW_BITS:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"tensor {name}: codec {message.codec} with {message.bits} bits is unknown",
        )
    if not quantizer.is_width(message.bits):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"tensor {name}: {message.bits} bits; 1 to 16, or 32 for raw, are possible",
        )
    if not (message.HasField("lo") and message.HasField("hi")):
        raise ProtocolError(pb.REFUSAL_REASON_WRONG_SHAPE, f"tensor {name}: its range is missing")
    return TensorCode(message.bits, reported_range(name, message.lo, message.hi))


def reported_spread(name: str, message: pb.TensorRange) -> Spread:
    """Check a range report of one tensor.

    Raises
    ------
    ProtocolError
        If its range is none, or mean and deviation are not finite.
    """
    bounds = reported_range(name, message.lo, message.hi)
    if not (abs(message.mean) < float("inf") and 0 <= message.deviation < float("inf")):
        raise ProtocolError(
            pb.REFUSAL_REASON_NOT_FINITE, f"tensor {name}: its mean or deviation is not finite"
        )
    return Spread(bounds.lo, bounds.hi, message.mean, message.deviation)


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
