"""The client's end of the stream as gRPC carries it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from fedaq.errors import FedaqError, UserError
from fedaq.link import CLIENT_OPTIONS, PATH
from fedaq.v1 import federation_pb2 as pb

_MISTAKES = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)


class NameTakenError(FedaqError):
    """A client of this name is connected: another one, or this one before it was restarted."""


class GrpcLink:
    """A `Link` over one gRPC call."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._writing = asyncio.Lock()

    async def send(self, message: pb.ClientMessage) -> None:
        """Send a message; one at a time.

        Raises
        ------
        FedaqError
            If the stream is broken.
        """
        try:
            async with self._writing:
                await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._broken() from None

    async def receive(self) -> pb.ServerMessage | None:
        """Return the next message, or None at the end of the stream.

        Raises
        ------
        UserError
            If the server refused the client.
        FedaqError
            If the stream is broken.
        """
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError:
            raise await self._broken() from None
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            if await self._call.code() != grpc.StatusCode.OK:
                raise await self._broken()
            return None
        assert isinstance(message, pb.ServerMessage)
        return message

    async def _broken(self) -> FedaqError:
        code, details = await self._call.code(), await self._call.details()
        if code in _MISTAKES:
            return UserError(f"the server refused this client: {details}")
        if code == grpc.StatusCode.ALREADY_EXISTS:
            return NameTakenError(f"the server refused this client: {details}")
        return FedaqError(f"the connection broke: {details or code.name}")


@asynccontextmanager
async def connect(address: str, timeout_s: float) -> AsyncIterator[GrpcLink]:
    """Open a stream to the server at ``host:port``.

    Raises
    ------
    FedaqError
        If there is no server within `timeout_s` seconds.
    """
    async with grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
        try:
            async with asyncio.timeout(timeout_s):
                await channel.channel_ready()
        except TimeoutError:
            raise FedaqError(
                f"no server at {address}; is it running, and is the address right? "
                "(--server host:port)"
            ) from None
        method: Any = channel.stream_stream(
            PATH,
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )
        call = method()
        try:
            yield GrpcLink(call)
        finally:
            call.cancel()
