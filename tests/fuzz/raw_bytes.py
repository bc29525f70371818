"""Peers that send a live server bytes: HTTP/2, gRPC and protobuf, or nearly so."""

import asyncio
import socket
from contextlib import suppress
from random import Random

from fedaq import PROTOCOL_VERSION
from fedaq.net.grpc_options import PATH
from fedaq.v1 import federation_pb2 as pb
from fuzz.live import PEERS, Count, FindingError
from fuzz.mutation import mutate, mutated_bytes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, DATA = 1, 4, 0
REQUEST = {
    ":method": b"POST", ":scheme": b"http", ":path": PATH.encode(), ":authority": b"x",
    "te": b"trailers", "content-type": b"application/grpc",
}  # fmt: skip


def frame(kind: int, flags: int, stream_id: int, content: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    head = len(content).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream_id.to_bytes(4, "big") + content


def garbage(random: Random) -> tuple[bytes, int]:
    """Return what a connection carries, and how many frames that is."""
    if random.random() < 0.1:
        return random.randbytes(random.randrange(1, 4000)), 1
    frames = [frame(SETTINGS, 0, 0, b""), frame(HEADERS, 4, 1, _request(random))]
    for _ in range(random.randrange(1, 12)):
        if random.random() < 0.3:
            frames.append(
                frame(
                    random.randrange(12), random.randrange(256), random.choice((0, 1, 1, 2, 2**31)),
                    random.randbytes(random.choice((0, 1, 4, 5, 8, 100))),
                )
            )  # fmt: skip
        else:
            frames.append(frame(DATA, 0, 1, _grpc_message(random)))
    at = random.randrange(len(frames))
    if random.random() < 0.5:
        frames[at] = mutated_bytes(frames[at], random)
    return PREFACE + b"".join(frames), len(frames)


def _request(random: Random) -> bytes:
    changes = {}
    if random.random() < 0.2:
        value = random.choice((b"", b"x" * 200, b"/a/b", b"\0", random.randbytes(9)))
        changes[random.choice(list(REQUEST))] = value
    return header_block(changes)


def header_block(changes: dict[str, bytes]) -> bytes:
    """Return the header fields of a call that is right but for some values."""
    return b"".join(
        b"\0" + _hpack(name.encode()) + _hpack(value) for name, value in (REQUEST | changes).items()
    )


def _hpack(text: bytes) -> bytes:
    """Return a string as HPACK writes it, without Huffman codes."""
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, digits = len(text) - 127, bytearray((127,))
    while rest >= 128:
        digits.append(rest % 128 + 128)
        rest //= 128
    return bytes((*digits, rest)) + text


def _grpc_message(random: Random) -> bytes:
    join = pb.Join(protocol_version=PROTOCOL_VERSION, client="bytes", examples=1)
    message = pb.ClientMessage(join=join)
    mutate(message, random)
    content = message.SerializeToString()
    length = len(content)
    if random.random() < 0.2:
        length = random.choice((0, length + 1, 2**22, 2**22 + 1, 2**31, 2**32 - 1))
    return bytes((random.choice((0, 0, 0, 1, 255)),)) + length.to_bytes(4, "big") + content


async def connections(address: str, messages: int, seed: int, count: Count) -> None:
    """Let peers open connections and send bytes until so many frames were sent."""
    host, _, port = address.partition(":")

    async def peer(number: int) -> None:
        random = Random(f"{seed}-{number}")
        while count.messages < messages:
            content, frames = garbage(random)
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                raise FindingError("the server does not listen any more") from None
            with suppress(ConnectionError, TimeoutError):
                writer.write(content)
                async with asyncio.timeout(random.choice((0.001, 0.01, 0.05))):
                    await writer.drain()
                    while await reader.read(4096):
                        pass
            count.messages += frames
            _hang_up(writer, random)

    async with asyncio.TaskGroup() as group:
        for number in range(PEERS):
            group.create_task(peer(number))


def _hang_up(writer: asyncio.StreamWriter, random: Random) -> None:
    if random.random() < 0.5:
        writer.transport.abort()
        return
    connection: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    writer.close()
