"""Chunks as they travel: packed codes, entropy-coded where that is shorter.

The entropy coder works on the codes of one tensor in one chunk at a time, so that chunks
still can be coded and decoded on their own, and it is used only where it saves bytes.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import entropy, kernels
from fedaq.codec.model import MAX_TENSORS
from fedaq.codec.payload import Data, Payload, Piece
from fedaq.codec.quantizer import RAW_BITS, packed_bytes
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb

Bytes = NDArray[np.uint8]

BYTE_BITS = 8
# Of protobuf's encoding.
_VARINT, _LENGTH_DELIMITED = 0, 2
# Of lengths, which protobuf refuses if they have more bytes than those take.
_VARINT_BITS = 35
_NUMBERS = {field.name: field.number for field in pb.Chunk.DESCRIPTOR.fields}
_ROUND_TAG = _NUMBERS["round"] << 3 | _VARINT
_OFFSET_TAG = _NUMBERS["offset"] << 3 | _VARINT
_DATA_TAG = _NUMBERS["data"] << 3 | _LENGTH_DELIMITED

Message = TypeVar("Message", pb.ClientMessage, pb.ServerMessage)


@dataclass(frozen=True)
class Chunk:
    """A chunk outside of its message, in which each look at the data copies it.

    Attributes
    ----------
    round : int
    offset : int
        Where its codes begin in the code bytes of the payload.
    data : bytes or memoryview
    code_bytes : int
        Packed code bytes that `data` stands for; 0 if it is those.
    coded_bytes : tuple of int
        If it is not: bytes of each tensor's codes in `data`, 0 where they are not coded.
    """

    round: int
    offset: int
    data: Data
    code_bytes: int = 0
    coded_bytes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many packed code bytes it stands for."""
        return self.code_bytes or len(self.data)

    @property
    def cost_bytes(self) -> int:
        """The bytes that energy is charged for: all that carries codes."""
        return len(self.data) + self._lengths.ByteSize()

    @property
    def _lengths(self) -> pb.Chunk:
        return pb.Chunk(code_bytes=self.code_bytes, coded_bytes=self.coded_bytes)

    def frame(self, envelope: type[pb.ClientMessage] | type[pb.ServerMessage]) -> bytes:
        """Return a serialized message with this chunk in it.

        The same bytes as protobuf's, which would copy the data five times.
        """
        before = pb.Chunk(round=self.round, offset=self.offset).SerializeToString()
        if self.data:
            before += _field_start(_NUMBERS["data"], len(self.data))
        after = self._lengths.SerializeToString()
        length = len(before) + len(self.data) + len(after)
        number = envelope.DESCRIPTOR.fields_by_name["chunk"].number
        return b"".join((_field_start(number, length), before, self.data, after))


def parse(frame: bytes, envelope: type[Message]) -> Message | Chunk:
    """Return a serialized message from a peer, or the chunk that it carries.

    A chunk's data stays where it is, if it stands where protobuf puts it; wherever else it stands,
    and whatever else is odd, is left to protobuf, which copies it twice.

    Raises
    ------
    DecodeError
        If it is no such message.
    """
    found = _data_in(frame, envelope.DESCRIPTOR.fields_by_name["chunk"].number)
    if found is not None:
        fields, data = found
        others = frame[fields] + frame[data.stop :]
        rest = pb.Chunk.FromString(others)
        # As protobuf writes them, so that no second data, even an empty one, is among them.
        if not rest.data and rest.SerializeToString() == others:
            return _chunk(rest, memoryview(frame)[data])
    message: Message = envelope.FromString(frame)
    return read(message.chunk) if message.WhichOneof("kind") == "chunk" else message


def kind_of(message: pb.ClientMessage | pb.ServerMessage | Chunk) -> str | None:
    """Return which of its kinds a message is."""
    return "chunk" if isinstance(message, Chunk) else message.WhichOneof("kind")


def read(message: pb.Chunk) -> Chunk:
    """Return what a message carries."""
    return _chunk(message, message.data)


def _chunk(fields: pb.Chunk, data: Data) -> Chunk:
    # Of too many, as many are kept as it takes to see that.
    lengths = tuple(fields.coded_bytes[: MAX_TENSORS + 1])
    return Chunk(fields.round, fields.offset, data, fields.code_bytes, lengths)


def _data_in(frame: bytes, number: int) -> tuple[slice, slice] | None:
    """Return where, in a message that is a chunk and no more, its first fields and its data lie.

    None if round, offset and data are not what it begins with.
    """
    with suppress(IndexError):
        if frame[0] != number << 3 | _LENGTH_DELIMITED:
            return None
        length, start = _varint(frame, 1)
        if start + length != len(frame):
            return None
        at = start
        for tag in (_ROUND_TAG, _OFFSET_TAG):
            if frame[at] == tag:
                _, at = _varint(frame, at + 1)
        if frame[at] == _DATA_TAG:
            length, begin = _varint(frame, at + 1)
            if begin + length <= len(frame):
                return slice(start, at), slice(begin, begin + length)
    return None


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    """Return a number of protobuf's, of a few bytes at the most, and where it ends."""
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        byte = frame[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError


def _field_start(number: int, length: int) -> bytes:
    """Return what stands before a field with a length: its number, and how long it is."""
    found = bytearray((number << 3 | _LENGTH_DELIMITED,))
    while length > 0x7F:
        found.append(length & 0x7F | 0x80)
        length >>= 7
    found.append(length)
    return bytes(found)


def to_chunk(
    header: Payload, round_number: int, offset: int, codes: Data, *, squeeze: bool
) -> Chunk:
    """Return packed code bytes as a chunk.

    Parameters
    ----------
    header : Payload
    round_number : int
    offset : int
        Where `codes` begin in the code bytes of the payload.
    codes : bytes or memoryview
        Packed codes.
    squeeze : bool
        Entropy-code them where that is shorter.
    """
    plain = Chunk(round_number, offset, codes)
    if not squeeze:
        return plain
    parts, lengths = [], []
    for piece in header.pieces(offset, len(codes)):
        packed = codes[piece.data]
        bits = header.codes[piece.tensor].bits
        coded = packed if bits == RAW_BITS else _squeezed(packed, bits, piece.values)
        shorter = len(coded) < len(packed)
        parts.append(coded if shorter else packed)
        lengths.append(len(coded) if shorter else 0)
    chunk = Chunk(round_number, offset, b"".join(parts), len(codes), tuple(lengths))
    return chunk if chunk.cost_bytes < len(codes) else plain


def codes_of(header: Payload, chunk: Chunk) -> Data:
    """Return the packed code bytes that a chunk from a peer stands for.

    Raises
    ------
    ProtocolError
        If it does not fit the payload, or an entropy-coded part is broken. Nothing is
        allocated for what its lengths claim beyond what the payload has room for.
    """
    if not chunk.code_bytes:
        # Raw values are read twice, and would be copied each time where they lie askew.
        is_raw = any(code.bits == RAW_BITS for code in header.codes)
        return bytes(chunk.data) if is_raw else chunk.data
    pieces = list(header.pieces(chunk.offset, chunk.code_bytes))
    if len(chunk.coded_bytes) != len(pieces):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"the chunk at byte {chunk.offset} has {len(chunk.coded_bytes)} lengths for "
            f"{len(pieces)} tensors",
        )
    return b"".join(_packed(header, chunk, pieces))


def _packed(header: Payload, chunk: Chunk, pieces: list[Piece]) -> Iterator[Data]:
    content, at = chunk.data, 0
    for piece, coded_bytes in zip(pieces, chunk.coded_bytes, strict=True):
        tensor = header.spec.tensors[piece.tensor].name
        end = at + (coded_bytes or piece.data.stop - piece.data.start)
        data = content[at:end]
        if len(data) != end - at:
            raise ProtocolError(
                pb.REFUSAL_REASON_WRONG_SIZE,
                f"the chunk at byte {chunk.offset} ends in the codes of tensor {tensor}",
            )
        try:
            bits = header.codes[piece.tensor].bits
            yield _expanded(data, bits, piece.values) if coded_bytes else data
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


def _squeezed(packed: Data, bits: int, values: int) -> bytes:
    """Entropy-code packed codes; of those of more than 8 bits, the highest 8."""
    symbols = _repacked(np.frombuffer(packed, np.uint8), bits, _aligned(bits), values)
    if bits <= BYTE_BITS:
        return entropy.compress(symbols)
    words, low_bits = symbols.view("<u2"), bits - BYTE_BITS
    high = entropy.compress((words >> low_bits).astype(np.uint8))
    low = (words & ((1 << low_bits) - 1)).astype("<u2").view(np.uint8)
    # Of wide codes, the lowest bits are as good as random.
    return high + _repacked(low, 2 * BYTE_BITS, low_bits, values).tobytes()


def _expanded(coded: Data, bits: int, values: int) -> bytes:
    """Return the packed codes: `_squeezed` backwards.

    Raises
    ------
    ValueError
        If `coded` is not what that many codes were coded to.
    """
    if bits == RAW_BITS:
        raise ValueError("raw values cannot be entropy-coded")
    width = _aligned(bits)
    if bits <= BYTE_BITS:
        symbols = entropy.expand(coded, packed_bytes(values, width))
    else:
        low_bits = bits - BYTE_BITS
        split = len(coded) - packed_bytes(values, low_bits)
        high = entropy.expand(coded[: max(split, 0)], values)
        low = np.frombuffer(coded, np.uint8)[split:]
        words = _repacked(low, low_bits, 2 * BYTE_BITS, values).view("<u2")
        symbols = (words | high.astype("<u2") << low_bits).view(np.uint8)
    return _repacked(symbols, width, bits, values).tobytes()


def _aligned(bits: int) -> int:
    """Return the next width of which whole codes fill bytes."""
    return next(width for width in (1, 2, 4, 8, 16) if width >= bits)


def _repacked(data: Bytes, bits: int, width: int, values: int) -> Bytes:
    if bits == width:
        return data
    out = np.empty(packed_bytes(values, width), np.uint8)
    kernels.repack(data, bits, width, values, out)
    return out
