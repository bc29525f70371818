"""From values to chunks, and from chunks to values: the only way there, and the only way back.

Between the two stand `Codes`: those of one tensor in one chunk, as they lie in memory. Where a
payload is entropy-coded, values are quantized straight to what the coder takes, and what it gives
back is used as it is: codes aligned to bytes, 1, 2, 4, 8 or 16 bits apart. Only codes that travel
packed are packed.

Codes are entropy-coded in one of two ways: by classes, where both ends know something of them
before and most are 0 (`given`), or as bytes that do not depend on each other (`entropy`). Either
coder works on the codes of one tensor in one chunk at a time, so that chunks can be coded and
decoded on their own, and it is used only where it saves bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import entropy, given, kernels, quantizer
from fedaq.codec.chunks import Chunk
from fedaq.codec.given import Given
from fedaq.codec.payload import COARSENING, COARSENINGS, ZERO, Payload, Piece, TensorCode
from fedaq.codec.quantizer import RAW_BITS, Floats, Key, Spread, packed_bytes
from fedaq.errors import NotFiniteError, ProtocolError
from fedaq.v1 import federation_pb2 as pb

Bytes = NDArray[np.uint8]
# The float32 values at a slice of the flat array of all tensors.
ValuesAt = Callable[[slice], Floats]

BYTE_BITS = 8
WORD_BITS = 2 * BYTE_BITS


@dataclass(frozen=True)
class Codes:
    """Codes of a run of values of one tensor, or the values themselves where they are raw.

    Attributes
    ----------
    code : TensorCode
        How the tensor is coded.
    data : uint8, shape (ceil(values * width / 8),)
        Read-only, perhaps.
    width : int
        Bits from one code to the next, at least ``code.bits``.
    values : int
    """

    code: TensorCode
    data: Bytes
    width: int
    values: int

    @property
    def raw(self) -> Floats | None:
        """The values, if they are raw."""
        if self.code.grid is not None:
            return None
        # Copied only if they lie askew.
        return np.require(self.data.view("<f4"), np.float32, "A")

    def spread(self) -> Spread:
        """Measure raw values.

        Raises
        ------
        ProtocolError
            If one of them is NaN or infinite.
        """
        assert self.raw is not None
        try:
            return quantizer.tensor_spread(self.raw)
        except NotFiniteError as error:
            raise ProtocolError(pb.REFUSAL_REASON_NOT_FINITE, f"raw tensor: {error}") from None

    def dequantize(self, out: Floats, *, add: bool = False) -> None:
        """Write the values to `out`, float32 of shape (values,), or add them to what is there.

        Raises
        ------
        ProtocolError
            If a raw value is NaN or infinite.
        """
        grid, raw = self.code.grid, self.raw
        if raw is not None:
            self.spread()
            np.copyto(out, out + raw if add else raw)
        elif grid is not None:
            quantizer.dequantize(self.data, grid, out, width=self.width, add=add)

    def sums(self) -> tuple[int, int]:
        """Return the sum of the codes and that of their squares."""
        return kernels.code_sums(self.data, self.code.bits, self.values, width=self.width)

    def packed(self) -> Bytes:
        """Return the codes without gaps, as they travel."""
        return _repacked(self.data, self.width, self.code.bits, self.values)


# The codes of a chunk, in their order, and where each run of them belongs.
Content = list[tuple[Piece, Codes]]


def encode(
    header: Payload,
    values_at: ValuesAt,
    keys: tuple[Key, ...],
    offset: int,
    length: int,
    round_number: int,
    *,
    squeeze: bool,
    nearest: bool = False,
    known: Given | None = None,
) -> tuple[Chunk, Content]:
    """Quantize what one chunk of a model, an update or a difference holds, and code it.

    Parameters
    ----------
    header : Payload
    values_at : callable
        Returns the float32 values at a slice of the flat array of all tensors.
    keys : tuple of Key
        A random stream per tensor.
    offset, length : int
        The chunk's place in the packed code bytes.
    round_number : int
    squeeze : bool
        Entropy-code where that is shorter.
    nearest : bool
        As `quantizer.quantize` takes it.
    known : Given, optional
        What the receiver knows of codes around zero.
    """
    # One after another in one array, unless they are still to be coded.
    out = None if squeeze else np.empty(length, np.uint8)
    content = []
    for piece in header.pieces(offset, length):
        place = None if out is None else out[piece.data]
        key = keys[piece.tensor] if keys else None
        codes = _quantized(
            header, piece, values_at, key, place, bytewise=known is not None, nearest=nearest
        )
        content.append((piece, codes))
    if out is not None:
        return Chunk(round_number, offset, out.data), content
    classes = None if known is None else partial(known.classes, header)
    return to_chunk(content, offset, length, round_number, classes), content


def to_chunk(
    content: Content,
    offset: int,
    length: int,
    round_number: int,
    classes: Callable[[Piece], Bytes] | None = None,
) -> Chunk:
    """Entropy-code codes where that is shorter, and pack the others.

    `classes` returns those that both ends know of a piece.
    """
    parts: list[bytes | memoryview] = []
    lengths = []
    for piece, codes in content:
        packed_size = packed_bytes(codes.values, codes.code.bits)
        coded = b""
        if codes.code.bits != RAW_BITS:
            coded = _squeezed(piece, codes, classes)
        shorter = 0 < len(coded) < packed_size
        parts.append(coded if shorter else codes.packed().data)
        lengths.append(len(coded) if shorter else 0)
    chunk = Chunk(round_number, offset, b"".join(parts), length, tuple(lengths))
    if chunk.cost_bytes < length:
        return chunk
    return Chunk(round_number, offset, b"".join(codes.packed().data for _, codes in content))


class Costing(Protocol):
    """A coded chunk, whatever it is wrapped in."""

    @property
    def cost_bytes(self) -> int:
        """The bytes that energy is charged for."""


Coded = TypeVar("Coded", bound=Costing)


def within(
    header: Payload,
    limit_bytes: int,
    code: Callable[[Payload], list[Coded]],
    times: float = COARSENING,
    tries: int = COARSENINGS,
) -> tuple[Payload, list[Coded]]:
    """Code with the finest steps, from those of `header` up, that keep a limit.

    Parameters
    ----------
    header : Payload
    limit_bytes : int
        Of the whole payload. What sends nothing is taken if nothing else keeps it.
    code : callable
        Codes all chunks of a payload.
    times, tries : float, int
        By how much steps are widened at a time, and how often; an update's are on the wire.
    """
    for coarser in header.ever_coarser(times, tries):
        coded = code(coarser)
        if coarser.header_bytes + sum(chunk.cost_bytes for chunk in coded) <= limit_bytes:
            break
    return coarser, coded


def decode(header: Payload, chunk: Chunk, known: Given | None = None) -> Content:
    """Return the codes that a chunk from a peer or a file stands for.

    `known` is what the sender took to be known.

    Raises
    ------
    ProtocolError
        If it does not fit the payload, or an entropy-coded part is broken. Nothing is
        allocated for what its lengths claim beyond what the payload has room for.
    """
    if chunk.code_bytes:
        return list(_expanded_content(header, chunk, known))
    # Raw values are read twice, and would be copied each time where they lie askew.
    is_raw = any(code.bits == RAW_BITS for code in header.codes)
    data = np.frombuffer(bytes(chunk.data) if is_raw else chunk.data, np.uint8)
    return packed_content(header, chunk.offset, data)


def packed_content(header: Payload, offset: int, data: Bytes) -> Content:
    """Return codes that lie at `offset` in the packed code bytes of a payload.

    Raises
    ------
    ProtocolError
        If they do not fit it.
    """
    content = []
    for piece in header.pieces(offset, len(data)):
        code = header.codes[piece.tensor]
        content.append((piece, Codes(code, data[piece.data], code.bits, piece.values)))
    return content


def decode_into(
    header: Payload, chunk: Chunk, flat: Floats, *, add: bool = False, known: Given | None = None
) -> None:
    """Decode a chunk into its place in the flat array of all tensors, or add it to what is there.

    Raises
    ------
    ProtocolError
        As `decode`, or if raw values are not finite.
    """
    write(header, decode(header, chunk, known), flat, add=add)


def write(header: Payload, content: Content, flat: Floats, *, add: bool = False) -> None:
    """Write the values of codes to their places in `flat`, or add them to what is there."""
    for piece, codes in content:
        codes.dequantize(flat[header.place(piece)], add=add)


def write_zeros(header: Payload, flat: Floats) -> None:
    """Write the tensors of which nothing is sent to their places in `flat`."""
    for code, part in zip(header.codes, header.spec.slices, strict=True):
        if code == ZERO:
            flat[part] = 0


def _quantized(
    header: Payload,
    piece: Piece,
    values_at: ValuesAt,
    key: Key | None,
    place: Bytes | None,
    *,
    bytewise: bool,
    nearest: bool,
) -> Codes:
    """Return the codes of a piece: packed to `place`, or aligned if there is none.

    With `bytewise`, codes that may be coded by classes have a byte each.
    """
    code, values = header.codes[piece.tensor], values_at(header.place(piece))
    if code.grid is None:
        # A copy, since codes may outlast the values.
        raw = values.astype("<f4", copy=place is None).view(np.uint8)
        if place is not None:
            place[:] = raw
        return Codes(code, raw if place is None else place, RAW_BITS, piece.values)
    assert key is not None
    width = code.bits
    if place is None:
        width = BYTE_BITS if bytewise and _has_classes(code) else aligned(code.bits)
    out = np.empty(packed_bytes(piece.values, width), np.uint8) if place is None else place
    quantizer.quantize(
        values, code.grid, key, first=piece.first, out=out, nearest=nearest, width=width
    )
    return Codes(code, out, width, piece.values)


def _expanded_content(
    header: Payload, chunk: Chunk, known: Given | None
) -> Iterator[tuple[Piece, Codes]]:
    pieces = list(header.pieces(chunk.offset, chunk.code_bytes))
    if len(chunk.coded_bytes) != len(pieces):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"the chunk at byte {chunk.offset} has {len(chunk.coded_bytes)} lengths for "
            f"{len(pieces)} tensors",
        )
    content, at = chunk.data, 0
    for piece, coded_bytes in zip(pieces, chunk.coded_bytes, strict=True):
        tensor, code = header.spec.tensors[piece.tensor].name, header.codes[piece.tensor]
        end = at + (coded_bytes or piece.data.stop - piece.data.start)
        data = content[at:end]
        if len(data) != end - at:
            raise ProtocolError(
                pb.REFUSAL_REASON_WRONG_SIZE,
                f"the chunk at byte {chunk.offset} ends in the codes of tensor {tensor}",
            )
        try:
            if coded_bytes and data[0] == given.GIVEN:
                yield piece, _known_codes(data, header, piece, known)
            else:
                yield piece, _codes(data, code, piece.values, coded=coded_bytes > 0)
        except ValueError as error:
            raise ProtocolError(
                pb.REFUSAL_REASON_BROKEN_CODE, f"tensor {tensor}: {error}"
            ) from None
        at = end
    if at != len(content):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"the chunk at byte {chunk.offset} has {len(content) - at} bytes too many",
        )


def _codes(data: bytes | memoryview, code: TensorCode, values: int, *, coded: bool) -> Codes:
    if coded:
        return _expanded(data, code, values)
    return Codes(code, np.frombuffer(data, np.uint8), code.bits, values)


def _known_codes(
    data: bytes | memoryview, header: Payload, piece: Piece, known: Given | None
) -> Codes:
    """Return codes that were coded by classes.

    Raises
    ------
    ValueError
        If `data` is not what that many codes are coded to, or cannot be.
    """
    code = header.codes[piece.tensor]
    if known is None or not _has_classes(code):
        raise ValueError(f"coded block: kind {given.GIVEN}")
    codes = given.expand(data, code.zero, code.bits, known.classes(header, piece))
    # As narrow as others: they may be kept for a while.
    width = aligned(code.bits)
    return Codes(code, _repacked(codes, BYTE_BITS, width, piece.values), width, piece.values)


def _has_classes(code: TensorCode) -> bool:
    return code.step > 0 and code.bits <= given.MOST_BITS


def _squeezed(piece: Piece, codes: Codes, classes: Callable[[Piece], Bytes] | None) -> bytes:
    """Entropy-code codes; of those of more than 8 bits, the highest 8."""
    bits, width, zero = codes.code.bits, aligned(codes.code.bits), codes.code.zero
    if classes is not None and _has_classes(codes.code):
        each = _repacked(codes.data, codes.width, BYTE_BITS, codes.values)
        if given.is_worth_it(each, zero):
            return given.compress(each, zero, bits, classes(piece))
    symbols = _repacked(codes.data, codes.width, width, codes.values)
    if bits <= BYTE_BITS:
        return entropy.compress(symbols)
    high = np.empty(codes.values, np.uint8)
    # Of wide codes, the lowest bits are as good as random.
    low = np.empty(packed_bytes(codes.values, bits - BYTE_BITS), np.uint8)
    # Packed words of 16 bits may lie at any byte.
    words = np.require(symbols.view(np.uint16), requirements="A")
    kernels.split_wide(words, bits, high, low)
    return entropy.compress(high) + low.tobytes()


def _expanded(coded: bytes | memoryview, code: TensorCode, values: int) -> Codes:
    """Return aligned codes: `_squeezed` backwards.

    Raises
    ------
    ValueError
        If `coded` is not what that many codes were coded to.
    """
    bits = code.bits
    if bits == RAW_BITS:
        raise ValueError("raw values cannot be entropy-coded")
    width = aligned(bits)
    if bits <= BYTE_BITS:
        symbols = entropy.expand(coded, packed_bytes(values, width))
        return Codes(code, symbols, width, values)
    split = len(coded) - packed_bytes(values, bits - BYTE_BITS)
    high = entropy.expand(coded[: max(split, 0)], values)
    words = np.empty(values, np.uint16)
    kernels.join_wide(high, np.frombuffer(coded, np.uint8)[split:], bits, words)
    return Codes(code, words.view(np.uint8), width, values)


def aligned(bits: int) -> int:
    """Return the next width of which whole codes fill bytes."""
    return next(width for width in (1, 2, 4, BYTE_BITS, WORD_BITS) if width >= bits)


def _repacked(data: Bytes, width: int, new_width: int, values: int) -> Bytes:
    if width == new_width:
        return data
    out = np.empty(packed_bytes(values, new_width), np.uint8)
    kernels.repack(data, width, new_width, values, out)
    return out
