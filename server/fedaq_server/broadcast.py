"""The model on its way down: encoded once, the same immutable bytes for every client."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass

from fedaq import payload
from fedaq.payload import Payload
from fedaq.quantizer import Floats
from fedaq.v1 import federation_pb2 as pb


@dataclass(frozen=True)
class Broadcast:
    """A coded model: its header, and serialized server messages ready to be written.

    Attributes
    ----------
    payload : Payload
    header : bytes
        The message that announces the model.
    chunks : tuple of Future of bytes
        The messages that carry it, each there as soon as it is coded.
    """

    payload: Payload
    header: bytes
    chunks: tuple[asyncio.Future[bytes], ...]

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the messages in their order, each as soon as it is coded."""
        yield self.header
        for chunk in self.chunks:
            # A client that is given up must not cancel what all others wait for.
            yield await asyncio.shield(chunk)

    async def coded(self) -> list[pb.Chunk]:
        """Wait until all chunks are coded and return them: the model may change from then on."""
        frames = await asyncio.gather(*map(asyncio.shield, self.chunks))
        return [pb.ServerMessage.FromString(frame).chunk for frame in frames]


def begin_broadcast(
    header: Payload,
    model: Floats,
    seed: int,
    round_number: int,
    chunk_bytes: int,
    worker: Executor,
) -> Broadcast:
    """Let the worker code the model, chunk by chunk, once for all clients."""
    keys = payload.transfer_keys(header.spec, seed, "downlink", round_number)

    def encode(offset: int, length: int) -> bytes:
        data = payload.encode_chunk(header, model, keys, offset, length)
        chunk = pb.Chunk(round=round_number, offset=offset, data=data)
        return pb.ServerMessage(chunk=chunk).SerializeToString()

    loop = asyncio.get_running_loop()
    announcement = pb.ServerMessage(model=payload.to_message(header, round_number))
    return Broadcast(
        header,
        announcement.SerializeToString(),
        tuple(
            loop.run_in_executor(worker, encode, offset, length)
            for offset, length in header.chunks(chunk_bytes)
        ),
    )


def decode_broadcast(header: Payload, chunks: list[pb.Chunk], out: Floats) -> None:
    """Write into `out` the model as the clients receive it, ``Q(w_k)``."""
    for chunk in chunks:
        payload.decode_chunk(header, chunk.offset, chunk.data, out)
