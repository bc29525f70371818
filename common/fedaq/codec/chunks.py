"""Chunks as they travel, and how they lie in protobuf's messages; `coding` fills them."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

from fedaq.codec.model import MAX_TENSORS
from fedaq.codec.payload import Data
from fedaq.v1 import federation_pb2 as pb

# Of protobuf's encoding.
_VARINT, _LENGTH_DELIMITED = 0, 2
# Of lengths, which protobuf refuses if they have more bytes than those take.
_VARINT_BITS = 35
_NUMBERS = {field.name: field.number for field in pb.Chunk.DESCRIPTOR.fields}
_ROUND_TAG = _NUMBERS["round"] << 3 | _VARINT
_OFFSET_TAG = _NUMBERS["offset"] << 3 | _VARINT
_DATA_TAG = _NUMBERS["data"] << 3 | _LENGTH_DELIMITED

Message = TypeVar("Message", pb.ClientMessage, pb.ServerMessage)
# What one side waits for from the other, beside a chunk.
Kind = Literal[
    "welcome", "plan", "model", "range_report", "grant", "update", "receipt",
    "mask_roster", "mask_shares", "share_check", "mask_set", "unmask", "unmasking",
]  # fmt: skip


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
    past : bytes
        Of a whole model: what its last differences had (`given.Past.packed`).
    """

    round: int
    offset: int
    data: Data
    code_bytes: int = 0
    coded_bytes: tuple[int, ...] = ()
    past: bytes = b""

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
        return pb.Chunk(code_bytes=self.code_bytes, coded_bytes=self.coded_bytes, past=self.past)

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

    def inside(self, message: bytes) -> "Chunk":
        """Return this chunk with its data where it lies in its `frame`."""
        end = len(message) - self._lengths.ByteSize()
        return replace(self, data=memoryview(message)[end - len(self.data) : end])

    def to_message(self) -> pb.Chunk:
        """Return protobuf's form of it."""
        return pb.Chunk(
            round=self.round,
            offset=self.offset,
            data=bytes(self.data),
            code_bytes=self.code_bytes,
            coded_bytes=self.coded_bytes,
            past=self.past,
        )


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


@overload
async def expected(
    expect: Callable[[str], Awaitable[Message | Chunk]], kind: Literal["chunk"]
) -> Chunk: ...
@overload
async def expected(expect: Callable[[str], Awaitable[Message | Chunk]], kind: Kind) -> Message: ...
async def expected(expect: Callable[[str], Awaitable[Any]], kind: str) -> Any:
    """Return the next message as what its kind makes it.

    Parameters
    ----------
    expect : callable
        Returns the next message from a peer, which is of the kind that it is given, or raises.
    kind : str
    """
    message = await expect(kind)
    assert kind_of(message) == kind
    return message


def read(message: pb.Chunk) -> Chunk:
    """Return what a message carries."""
    return _chunk(message, message.data)


def _chunk(fields: pb.Chunk, data: Data) -> Chunk:
    # Of too many, as many are kept as it takes to see that.
    lengths = tuple(fields.coded_bytes[: MAX_TENSORS + 1])
    return Chunk(fields.round, fields.offset, data, fields.code_bytes, lengths, fields.past)


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
