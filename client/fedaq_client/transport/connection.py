"""The client's end of the stream as gRPC carries it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc

from fedaq.codec.chunks import Chunk, parse
from fedaq.errors import FedaqError, UserError, printable
from fedaq.net.credentials import Certificates
from fedaq.net.grpc_options import CLIENT_OPTIONS, DIRECT, PATH, PROXY
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.transport.access import PLAIN, Access
from fedaq_client.transport.diagnosis import nobody_listens, tls_problem
from fedaq_client.transport.proxies import way_hint

_MISTAKES = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
)


class NameTakenError(FedaqError):
    """A client of this name is connected: another one, or this one before it was restarted."""


class NobodyListensError(FedaqError):
    """The server's machine refused the connection: the server is gone, and not for this client."""


class GrpcStream:
    """A `Stream` over one gRPC call."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._writing = asyncio.Lock()

    async def send(self, frame: bytes) -> None:
        """Send a serialized message; one at a time.

        Raises
        ------
        FedaqError
            If the stream is broken.
        """
        try:
            async with self._writing:
                await self._call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._broken() from None

    async def receive(self) -> pb.ServerMessage | Chunk | None:
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
        assert isinstance(message, (pb.ServerMessage, Chunk))
        return message

    async def _broken(self) -> FedaqError:
        code, details = await self._call.code(), printable(await self._call.details() or "")
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return UserError(
                f"the server refused this client: {details}; its operator can see why. A token "
                "is given with --token-file or FEDAQ_TOKEN, a certificate with --tls"
            )
        if code in _MISTAKES:
            return UserError(f"the server refused this client: {details}")
        if code == grpc.StatusCode.ALREADY_EXISTS:
            return NameTakenError(f"the server refused this client: {details}")
        return FedaqError(f"the connection broke: {details or code.name}")


@asynccontextmanager
async def connect(
    address: str, timeout_s: float, access: Access = PLAIN, *, once: bool = False
) -> AsyncIterator[GrpcStream]:
    """Open a stream to the server at ``host:port``.

    Parameters
    ----------
    address : str
    timeout_s : float
        For how long to try.
    access : Access
    once : bool
        Whether not to try again where nobody listens.

    Raises
    ------
    UserError
        If the two cannot agree on TLS.
    NobodyListensError
        If nobody listens there, and that was to be tried `once`.
    FedaqError
        If there is no server in time.
    """
    async with channel_to(address, access) as channel:
        try:
            async with asyncio.timeout(timeout_s):
                await _be_ready(channel, address, access, once=once)
        except TimeoutError:
            raise FedaqError(_missing(address, access)) from None
        method: Any = channel.stream_stream(
            PATH,
            request_serializer=None,
            response_deserializer=partial(parse, envelope=pb.ServerMessage),
        )
        call = method(metadata=metadata_of(access))
        try:
            yield GrpcStream(call)
        finally:
            call.cancel()


def in_turn(
    servers: Sequence[tuple[str, Access]], timeout_s: float
) -> Callable[[], AbstractAsyncContextManager[GrpcStream]]:
    """Return what opens a stream to one of these servers: as `connect`, again and again.

    It is the last one that was there, or, if it is there no more, the next. The first that is found
    may yet have to start; from then on, each call tries `once`.
    """
    turn, found = 0, False

    @asynccontextmanager
    async def opened() -> AsyncIterator[GrpcStream]:
        nonlocal turn, found
        address, access = servers[turn]
        async with AsyncExitStack() as stack:
            try:
                stream = await stack.enter_async_context(
                    connect(address, timeout_s, access, once=found)
                )
            except FedaqError:
                turn = (turn + 1) % len(servers)
                raise
            found = True
            yield stream

    return opened


def channel_to(address: str, access: Access) -> grpc.aio.Channel:
    """Return a channel on which nothing is sent yet."""
    way = (PROXY, access.proxy) if access.proxy else DIRECT
    options: list[tuple[str, Any]] = [*CLIENT_OPTIONS, way]
    own = access.certificates
    if own is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials_of(own), options=options)


def metadata_of(access: Access) -> list[tuple[str, str]] | None:
    """Return what shows the server a token, if there is one."""
    return [("authorization", f"Bearer {access.token}")] if access.token else None


def credentials_of(own: Certificates) -> grpc.ChannelCredentials:
    """Return the certificates as gRPC takes them."""
    return grpc.ssl_channel_credentials(own.ca, own.key or None, own.certificate or None)


def _missing(address: str, access: Access) -> str:
    return (
        f"no server at {address}; is it running, and is the address right? "
        f"(--server host:port){way_hint(address, access.proxy)}"
    )


async def _be_ready(channel: grpc.aio.Channel, address: str, access: Access, *, once: bool) -> None:
    """Wait until there is a connection; one that TLS forbids is not waited for."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            problem = await tls_problem(address, access)
            if problem is not None:
                raise UserError(problem)
            if once and await nobody_listens(address, access):
                raise NobodyListensError(_missing(address, access))
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
