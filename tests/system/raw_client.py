"""A gRPC client that sends whatever it is told to, right or wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from fedaq import PROTOCOL_VERSION, model, payload
from fedaq.link import PATH
from fedaq.model import ModelSpec
from fedaq.quantizer import RAW_BITS, Range
from fedaq.v1 import federation_pb2 as pb

PATIENCE_S = 60.0


class FinishedError(Exception):
    """The server said that the run is over."""


class EndedError(Exception):
    """The server ended the stream."""


class RawClient:
    """One stream to a server.

    Parameters
    ----------
    call : grpc.aio.StreamStreamCall
    spec : ModelSpec
        Of the server's model.
    """

    def __init__(self, call: Any, spec: ModelSpec) -> None:
        self._call = call
        self.spec = spec

    async def send(self, message: pb.ClientMessage | bytes) -> None:
        """Send a message, or bytes that are none; if the stream has ended, `status` tells why."""
        frame = message if isinstance(message, bytes) else message.SerializeToString()
        with suppress(grpc.aio.AioRpcError):
            async with asyncio.timeout(PATIENCE_S):
                await self._call.write(frame)

    async def receive(self, kind: str) -> pb.ServerMessage:
        """Skip to the next message of this kind."""
        async with asyncio.timeout(PATIENCE_S):
            while (message := await self._next()) is not None:
                got = message.WhichOneof("kind")
                if got == kind:
                    return message
                if got == "finish":
                    raise FinishedError(message.finish.reason)
        raise EndedError(f"no {kind} came: {await self.status()}")

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """Skip to the end of the stream; return its code and sentence."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._next() is not None:
                pass
            return await self._call.code(), await self._call.details()

    async def _next(self) -> pb.ServerMessage | None:
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError:
            return None
        return None if frame is grpc.aio.EOF else pb.ServerMessage.FromString(frame)

    def hang_up(self) -> None:
        """Break the stream off."""
        self._call.cancel()

    async def join(self, **fields: Any) -> None:
        """Send a join that is right but for the given fields."""
        right = {
            "protocol_version": PROTOCOL_VERSION,
            "client": "mallory",
            "examples": 1,
            "model": model.to_message(self.spec),
        }
        await self.send(pb.ClientMessage(join=pb.Join(**{**right, **fields})))

    async def report(self, round_number: int, **fields: Any) -> None:
        """Send a range report that is right but for the given fields."""
        right = {
            "round": round_number,
            "ranges": [pb.TensorRange(lo=-0.5, hi=0.5) for _ in self.spec.tensors],
            "train_loss": 1.0,
        }
        message = pb.RangeReport(**{**right, **fields})
        await self.send(pb.ClientMessage(range_report=message))

    def header(self, round_number: int, bits: tuple[int, ...]) -> pb.PayloadHeader:
        """Return the header of an update with ranges of [-0.5, 0.5]."""
        ranges = (Range(-0.5, 0.5) for _ in bits)
        planned = payload.plan_payload(self.spec, bits, ranges)
        return payload.to_message(planned, round_number)

    async def granted(self, round_number: int) -> pb.PayloadHeader:
        """Report, wait for the grant, and return the header of a right update."""
        await self.report(round_number)
        grant = (await self.receive("grant")).grant
        return self.header(round_number, tuple(grant.uplink_bits))

    async def announce(self, header: pb.PayloadHeader) -> None:
        """Send the header of an update."""
        await self.send(pb.ClientMessage(update=header))

    async def chunk(self, round_number: int, offset: int, data: bytes) -> None:
        """Send a chunk."""
        chunk = pb.Chunk(round=round_number, offset=offset, data=data)
        await self.send(pb.ClientMessage(chunk=chunk))


@asynccontextmanager
async def raw_client(address: str, spec: ModelSpec) -> AsyncIterator[RawClient]:
    """Open a stream; nothing has been sent on it yet."""
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        async with asyncio.timeout(PATIENCE_S):
            await channel.channel_ready()
        call = channel.stream_stream(PATH)()
        try:
            yield RawClient(call, spec)
        finally:
            call.cancel()


def group_bytes(header: pb.PayloadHeader) -> int:
    """Return the bytes of one group of values of the first tensor."""
    bits = header.tensors[0].bits
    return 4 if bits == RAW_BITS else bits
