"""The gRPC service: who may join, and the reading end of every client's stream."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from fedaq import PROTOCOL_VERSION, model
from fedaq.energy import RadioCost
from fedaq.errors import UserError
from fedaq.link import METHOD, SERVER_OPTIONS, SERVICE
from fedaq.model import ModelSpec
from fedaq.settings import Settings
from fedaq.tasks import Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.clients import Client, Roster, Stream

log = logging.getLogger(__name__)

MAX_NAME = 64
MAX_EXAMPLES = 2**40
MISSED_HEARTBEATS = 3


class JoinRefusedError(Exception):
    """A client may not join; the sentence is for its operator."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Admission:
    """What a client must match, and what it is told when it may join."""

    spec: ModelSpec
    settings: Settings
    training: Training
    run_id: str
    roster: Roster

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
        if not (0 < len(name) <= MAX_NAME and name.isprintable() and not set(name) & set("/\\ ")):
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a client name has 1 to {MAX_NAME} printable characters, no spaces or slashes",
            )
        if not 0 < join.examples <= MAX_EXAMPLES:
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{name} has {join.examples} training examples; it needs 1 to {MAX_EXAMPLES}",
            )
        if name in self.roster:
            raise JoinRefusedError(
                grpc.StatusCode.ALREADY_EXISTS,
                f"a client named {name} is connected already; give each client its own --name",
            )
        self._check_model(join.model)
        return Client(name, join.examples, self._radio(join), stream)

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
                chunk_bytes=network.chunk_bytes,
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

    def _radio(self, join: pb.Join) -> RadioCost:
        if not join.HasField("radio"):
            return self.settings.energy.radio_cost()
        costs = RadioCost(join.radio.uplink_j_per_bit, join.radio.downlink_j_per_bit)
        if not all(0 < cost < 1 for cost in (costs.uplink_j_per_bit, costs.downlink_j_per_bit)):
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, "a radio needs more than 0, less than 1 J/bit"
            )
        return costs


async def serve_client(admission: Admission, stream: Stream) -> None:
    """Carry one client's stream from its join to its end.

    Raises
    ------
    JoinRefusedError
        If it may not join.
    """
    client = admission.admit(await stream.read(), stream)
    patience_s = MISSED_HEARTBEATS * admission.settings.network.heartbeat_interval_s
    # Welcome first: once on the roster, a round may write to the stream at any moment.
    await client.send(admission.welcome())
    await admission.roster.add(client)
    log.info("%s joined with %d examples", client.name, client.examples)
    try:
        while True:
            async with asyncio.timeout(patience_s):
                message = await stream.read()
            if message is None or message.WhichOneof("kind") == "leave":
                break
            await client.deliver(message)
    except TimeoutError:
        log.warning("%s was silent for %g s and is taken off the roster", client.name, patience_s)
    finally:
        await admission.roster.remove(client)


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
        async with self._writing:
            await self._context.write(frame)


Handler = Callable[[AsyncIterator[bytes], Any], Awaitable[None]]


def grpc_server(admission: Admission) -> grpc.aio.Server:
    """Return a gRPC server that serves this admission; it has no port yet.

    Messages are serialized by their senders, so that a broadcast is serialized once.
    """

    async def participate(requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            await serve_client(admission, _GrpcStream(context))
        except JoinRefusedError as refusal:
            log.warning("refused %s: %s", context.peer(), refusal)
            await context.abort(refusal.code, str(refusal))

    server = grpc.aio.server(options=SERVER_OPTIONS)
    handler = grpc.stream_stream_rpc_method_handler(participate)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
    )
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
