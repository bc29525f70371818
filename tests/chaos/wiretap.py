"""A relay for one client's connections that reads along, and can cut them.

It counts payload bytes from the HTTP/2 frames that pass, with nothing of the server's or the
client's own counting: DATA frames, gRPC messages in them, and what of those carries values.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from fedaq.codec import chunks, headers, model
from fedaq.codec.model import ModelSpec
from fedaq.v1 import federation_pb2 as pb

_PREFACE_BYTES, _FRAME_HEADER_BYTES, _MESSAGE_HEADER_BYTES = 24, 9, 5
_DATA = 0
_READ_BYTES = 64 * 1024


@dataclass
class GrpcMessages:
    """Takes one direction of an HTTP/2 connection apart; one stream carries everything."""

    skip: int
    _raw: bytearray = field(default_factory=bytearray)
    _data: bytearray = field(default_factory=bytearray)

    def feed(self, content: bytes) -> Iterator[bytes]:
        """Yield the gRPC messages that are complete now."""
        self._raw += content
        if self.skip:
            if len(self._raw) < self.skip:
                return
            del self._raw[: self.skip]
            self.skip = 0
        while len(self._raw) >= _FRAME_HEADER_BYTES:
            end = _FRAME_HEADER_BYTES + int.from_bytes(self._raw[:3], "big")
            if len(self._raw) < end:
                break
            if self._raw[3] == _DATA:
                self._data += self._raw[_FRAME_HEADER_BYTES:end]
            del self._raw[:end]
        while len(self._data) >= _MESSAGE_HEADER_BYTES:
            end = _MESSAGE_HEADER_BYTES + int.from_bytes(self._data[1:5], "big")
            if len(self._data) < end:
                break
            yield bytes(self._data[_MESSAGE_HEADER_BYTES:end])
            del self._data[:end]


@dataclass
class Conversation:
    """What one connection carried in its last round."""

    tell: Callable[[int, int, int], None]
    _spec: ModelSpec | None = None
    _round: int = 0
    _down: int = 0
    _up: int = 0

    def hear_client(self, message: pb.ClientMessage) -> None:
        kind = message.WhichOneof("kind")
        if kind == "join":
            self._spec = model.from_message(message.join.model)
        elif kind == "update":
            self._up = self._header_bytes(message.update)
        elif kind == "chunk":
            self._up += chunks.read(message.chunk).cost_bytes
        if kind in ("update", "chunk"):
            self.tell(self._round, self._down, self._up)

    def hear_server(self, message: pb.ServerMessage) -> None:
        kind = message.WhichOneof("kind")
        if kind == "plan":
            self._round, self._down, self._up = message.plan.round, 0, 0
        elif kind == "model":
            self._down += self._header_bytes(message.model)
        elif kind == "chunk":
            self._down += chunks.read(message.chunk).cost_bytes

    def _header_bytes(self, message: pb.PayloadHeader) -> int:
        assert self._spec is not None
        return headers.from_message(self._spec, message).header_bytes


@dataclass
class Tap:
    """Where one client connects.

    Attributes
    ----------
    port : int
        Of the relay.
    passed : dict of int to (int, int)
        Payload bytes down and up of the last attempt at each round.
    """

    server_port: int
    port: int = 0
    passed: dict[int, tuple[int, int]] = field(default_factory=dict)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _closed_until: float = 0.0
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, seconds: float) -> None:
        """Break the connection, and let none through for a while."""
        self._closed_until = time.monotonic() + seconds
        for writer in self._open:
            writer.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut(0.0)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if time.monotonic() < self._closed_until:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.transport.abort()
            return

        def tell(number: int, down: int, up: int) -> None:
            self.passed[number] = (down, up)

        talk = Conversation(tell)
        from_client, from_server = GrpcMessages(_PREFACE_BYTES), GrpcMessages(0)

        def client_said(content: bytes) -> None:
            for message in from_client.feed(content):
                talk.hear_client(pb.ClientMessage.FromString(message))

        def server_said(content: bytes) -> None:
            for message in from_server.feed(content):
                talk.hear_server(pb.ServerMessage.FromString(message))

        ends = {writer, up_writer}
        self._open |= ends
        try:
            await asyncio.gather(
                _pump(reader, up_writer, client_said), _pump(up_reader, writer, server_said)
            )
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hear: Callable[[bytes], None]
) -> None:
    with suppress(OSError):
        while content := await reader.read(_READ_BYTES):
            hear(content)
            writer.write(content)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()
