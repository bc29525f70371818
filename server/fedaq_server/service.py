"""The gRPC service: who may join, and the reading end of every client's stream."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from fedaq import PROTOCOL_VERSION, model
from fedaq.energy import RadioCost, checked_cost
from fedaq.errors import UserError
from fedaq.link import METHOD, SERVER_OPTIONS, SERVICE
from fedaq.logs import event
from fedaq.model import ModelSpec
from fedaq.settings import Settings
from fedaq.tasks import Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.clients import Client, DisconnectedError, Roster, Stream
from fedaq_server.metrics import Metrics
from fedaq_server.unknown_calls import robust_server

log = logging.getLogger(__name__)

# In UTF-8; a name becomes part of a file name, which may have 255 bytes.
MAX_NAME_BYTES = 64
MAX_EXAMPLES = 2**40
MISSED_HEARTBEATS = 3
_LONGEST_SENTENCE = 500


class JoinRefusedError(Exception):
    """A client may not join, or may not stay; the sentence is for its operator and ours.

    It may quote what the client sent, so it is cut to what fits an HTTP/2 trailer and
    cleared of what would steer a terminal.
    """

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        shown = "".join(c if c.isprintable() else "?" for c in sentence[:_LONGEST_SENTENCE])
        super().__init__(shown)
        self.code = code


@dataclass(frozen=True)
class Admission:
    """What a client must match, and what it is told when it may join."""

    spec: ModelSpec
    settings: Settings
    training: Training
    run_id: str
    roster: Roster
    metrics: Metrics

    def admit(self, message: pb.ClientMessage | None, stream: Stream) -> Client:
        """Return the client that its first message describes.

        Raises
        ------
        JoinRefusedError
            If it cannot take part.
        """
        if message is None or message.WhichOneof("kind") != "join":
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, "the first message of a stream must be a join"
            )
        join = message.join
        if join.protocol_version != PROTOCOL_VERSION:
            raise JoinRefusedError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the server speaks protocol {PROTOCOL_VERSION}, the client "
                f"{join.protocol_version}; install the same fedaq on both",
            )
        name = join.client
        if (
            not 0 < len(name.encode()) <= MAX_NAME_BYTES
            or not name.isprintable()
            or set(name) & set("/\\ ")
        ):
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a client name has 1 to {MAX_NAME_BYTES} printable characters (bytes in UTF-8), "
                "no spaces or slashes",
            )
        if not 0 < join.examples <= MAX_EXAMPLES:
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{name} has {join.examples} training examples; it needs 1 to {MAX_EXAMPLES}",
            )
        self._check_model(join.model)
        client = Client(
            name, join.examples, self._radio(join), stream, join.holds, process=join.process,
            on_refusal=self.metrics.on_refusal,
        )  # fmt: skip
        present = self.roster.get(name)
        if present is not None and not (join.process and join.process == present.process):
            raise JoinRefusedError(
                grpc.StatusCode.ALREADY_EXISTS,
                f"a client named {name} is connected already; give each client its own --name",
            )
        return client

    def welcome(self) -> pb.ServerMessage:
        """Return the message that lets a client in."""
        network = self.settings.network
        return pb.ServerMessage(
            welcome=pb.Welcome(
                protocol_version=PROTOCOL_VERSION,
                run_id=self.run_id,
                seed=self.settings.seed,
                training=pb.Training(
                    local_epochs=self.training.local_epochs,
                    batch_size=self.training.batch_size,
                    learning_rate=self.training.learning_rate,
                    momentum=self.training.momentum,
                ),
                heartbeat_interval_s=network.heartbeat_interval_s,
            )
        )

    def _check_model(self, signature: pb.ModelSignature) -> None:
        try:
            difference = self.spec.difference(model.from_message(signature))
        except ValueError as error:
            raise JoinRefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        if difference is not None:
            raise JoinRefusedError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the client's model is not the server's: {difference} (server here, client there)",
            )

    def _radio(self, join: pb.Join) -> RadioCost | None:
        if not join.HasField("radio"):
            return None
        stated = join.radio
        try:
            return checked_cost(
                RadioCost(
                    stated.uplink_j_per_bit, stated.downlink_j_per_bit, stated.receive_j_per_bit
                )
            )
        except ValueError as error:
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, f"the radio of {join.client}: {error}"
            ) from None


async def serve_client(admission: Admission, stream: Stream) -> None:
    """Carry one client's stream from its join to its end.

    Raises
    ------
    JoinRefusedError
        If it may not join, or falls silent.
    """
    patience_s = MISSED_HEARTBEATS * admission.settings.network.heartbeat_interval_s
    try:
        async with asyncio.timeout(patience_s):
            join = await stream.read()
    except TimeoutError:
        raise _silent(patience_s) from None
    client = admission.admit(join, stream)
    # Listed before anything is awaited, or two of one name could pass. The welcome still
    # goes first: a stream writes in the order of the calls.
    admission.roster.add(client)
    try:
        await client.send(admission.welcome())
        await admission.roster.announce()
        admission.metrics.joined.inc()
        log.info(
            "%s joined with %d examples", client.name, client.examples,
            extra=event("client joined", client=client.name, examples=client.examples),
        )  # fmt: skip
        while True:
            async with asyncio.timeout(patience_s):
                message = await stream.read()
            if message is None:
                break
            if message.WhichOneof("kind") == "leave":
                client.left = True
                break
            if message.WhichOneof("kind") != "heartbeat":
                await admission.roster.heard_of(client)
            await client.deliver(message)
    except TimeoutError:
        raise _silent(patience_s) from None
    except DisconnectedError:
        pass
    finally:
        log.info("%s left", client.name, extra=event("client left", client=client.name))
        await admission.roster.remove(client)


def _silent(patience_s: float) -> JoinRefusedError:
    return JoinRefusedError(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"nothing was heard of you for {patience_s:g} s; join again",
    )


class _GrpcStream:
    """A client's stream as gRPC carries it."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._writing = asyncio.Lock()

    async def read(self) -> pb.ClientMessage | None:
        message = await self._context.read()
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            return None
        try:
            return pb.ClientMessage.FromString(message)
        except DecodeError:
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, "a message is not a fedaq.v1.ClientMessage"
            ) from None

    async def write(self, frame: bytes) -> None:
        try:
            async with self._writing:
                await self._context.write(frame)
        except (grpc.aio.BaseError, asyncio.InvalidStateError):
            raise DisconnectedError("the stream has ended") from None


Handler = Callable[[AsyncIterator[bytes], Any], Awaitable[None]]


def grpc_server(admission: Admission) -> grpc.aio.Server:
    """Return a gRPC server that serves this admission; it has no port yet.

    Messages are serialized by their senders, so that a broadcast is serialized once.
    """

    async def participate(requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            await serve_client(admission, _GrpcStream(context))
        except JoinRefusedError as refusal:
            code = refusal.code.name.lower()
            admission.metrics.join_refused.labels(code).inc()
            log.warning(
                "refused %s: %s", context.peer(), refusal,
                extra=event("stream refused", peer=context.peer(), reason=code,
                            detail=str(refusal)),
            )  # fmt: skip
            with suppress(grpc.aio.InternalError):  # it has gone
                await context.abort(refusal.code, str(refusal))

    server: grpc.aio.Server = robust_server(SERVER_OPTIONS)
    methods = {METHOD: grpc.stream_stream_rpc_method_handler(participate)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_registered_method_handlers(SERVICE, methods)  # type: ignore[attr-defined]
    return server


async def bind(server: grpc.aio.Server, host: str, port: int) -> int:
    """Bind the server to an address and return the port.

    Raises
    ------
    UserError
        If the port is taken or the address is not this machine's.
    """
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise UserError(
            f"cannot listen on {host}:{port}: the port is busy or the address is not this "
            "machine's; choose another with --port or --host"
        )
    return bound
