"""The gRPC service: who may join, and the reading end of every client's stream."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from fedaq import PROTOCOL_VERSION, __version__, declines
from fedaq.codec import model
from fedaq.codec.chunks import Chunk, kind_of, parse
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import ZERO
from fedaq.errors import UserError
from fedaq.net import client_names
from fedaq.net.addresses import joined
from fedaq.net.grpc_options import DESCRIBE_PATH, PATH, SERVER_OPTIONS, SERVICE
from fedaq.net.ports import why_not
from fedaq.process.logs import event
from fedaq.settings import Settings
from fedaq.tasks import Training
from fedaq.tasks.training import to_message
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.accounts import Accounts
from fedaq_server.conduct import Conduct
from fedaq_server.identity.caller import Identify, JoinRefusedError, nobody_in_particular
from fedaq_server.metrics import Metrics
from fedaq_server.transport import readiness
from fedaq_server.transport.client import MAX_EXAMPLES, Client, DisconnectedError, Stream
from fedaq_server.transport.faults import blame, is_fault
from fedaq_server.transport.grpc_workaround import robust_server
from fedaq_server.transport.patience import Read, patient
from fedaq_server.transport.rate_limit import AddressCounts, Bucket, TurnedAway
from fedaq_server.transport.roster import Roster, return_window_s
from fedaq_server.transport.stated import check_masks, check_software, open_account, stated_in
from fedaq_server.transport.tcp_counter import received_bytes

log = logging.getLogger(__name__)

T = TypeVar("T")

MISSED_HEARTBEATS = 3
# Messages besides those of rounds: for how long a client may save up, what heartbeats it may
# send, and the bytes that count as a message.
SAVED_S, HEARTBEATS, MESSAGE_BYTES = 50, 2, 4096
# Refusals of streams that are remembered, the last ones.
REMEMBERED = 5
# Ends of a stream that are the client's fault.
FAULTS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(frozen=True)
class Admission:
    """What a client must match, and what it is told when it may join."""

    spec: ModelSpec
    settings: Settings
    training: Training
    run_id: str
    roster: Roster
    conduct: Conduct
    metrics: Metrics
    accounts: Accounts = field(default_factory=Accounts)
    rounds_done: Callable[[], int] = lambda: 0
    turned_away: dict[tuple[str, str], TurnedAway] = field(default_factory=dict)

    def admit(
        self, message: pb.ClientMessage | Chunk | None, stream: Stream, identity: str | None = None
    ) -> Client:
        """Return the client that its first message describes.

        Parameters
        ----------
        message : ClientMessage or Chunk, optional
        stream : Stream
        identity : str, optional
            The name that its certificate or token proves; None where nothing is proved.

        Raises
        ------
        JoinRefusedError
            If it cannot take part.
        """
        if message is None or isinstance(message, Chunk) or not message.HasField("join"):
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, "the first message of a stream must be a join"
            )
        join = message.join
        if identity not in (None, join.client):
            raise JoinRefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{identity} tried to join as {join.client!r}",
                told="permission denied",
            )
        if join.protocol_version != PROTOCOL_VERSION:
            raise JoinRefusedError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the server speaks protocol {PROTOCOL_VERSION}, the client "
                f"{join.protocol_version}; install the same fedaq on both",
            )
        name = join.client
        if not client_names.is_name(name):
            raise JoinRefusedError(grpc.StatusCode.INVALID_ARGUMENT, client_names.RULE)
        self.check_conduct(name)
        if len(join.holds) > model.DIGEST_BYTES:
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a digest of {len(join.holds)} bytes; it has {model.DIGEST_BYTES}",
            )
        if not 0 < join.examples <= MAX_EXAMPLES:
            raise JoinRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{name} has {join.examples} training examples; it needs 1 to {MAX_EXAMPLES}",
            )
        self._check_model(join.model)
        check_software(join, self.training, self.settings)
        check_masks(join, self.settings)
        stated = stated_in(join, self.accounts)
        client = Client(
            name, join.examples, stated.radio, stream, join.holds, process=join.process,
            on_refusal=self.metrics.on_refusal, declined=declines.from_message(join.readiness),
            radio_name=join.radio.name, tariff=stated.tariff,
        )  # fmt: skip
        if join.HasField("relayed"):
            client.stands_for(join.relayed)
        present = self.roster.get(name)
        same = identity is not None or (
            present and join.process and join.process == present.process
        )
        if present is not None and not same:
            raise JoinRefusedError(
                grpc.StatusCode.ALREADY_EXISTS,
                f"a client named {name} is connected already; give each client its own --name",
            )
        least = len(self.spec.tensors) * ZERO.header_bytes
        cost = client.cost(self.settings, self.rounds_done() + 1)
        open_account(self.accounts, name, cost, stated.budget, least)
        return client

    def welcome(self) -> pb.ServerMessage:
        """Return the message that lets a client in."""
        network = self.settings.network
        return pb.ServerMessage(
            welcome=pb.Welcome(
                protocol_version=PROTOCOL_VERSION,
                run_id=self.run_id,
                seed=self.settings.seed,
                training=to_message(self.training),
                heartbeat_interval_s=network.heartbeat_interval_s,
                relays=True,
                return_window_s=return_window_s(max(self.settings.clients, len(self.roster))),
            )
        )

    def check_conduct(self, name: str) -> None:
        """Refuse a client that was shut out."""
        if name in self.conduct.shut_out:
            raise JoinRefusedError(
                grpc.StatusCode.PERMISSION_DENIED, f"{name} is {self.conduct.shut_out[name].reason}"
            )

    def description(self) -> bytes:
        """Return what does not change of the answer to Describe, serialized."""
        return pb.Description(
            protocol_version=PROTOCOL_VERSION,
            software=f"fedaq {__version__}",
            task=self.settings.task,
            model=model.to_message(self.spec),
            rounds=self.settings.rounds,
        ).SerializeToString()

    def state(self) -> pb.Description:
        """Return the rest of it."""
        return pb.Description(
            unix_time_s=time.time(), round=self.rounds_done(), clients=len(self.roster)
        )

    def turn_away(self, peer: str, reason: str) -> None:
        """Remember that a stream was refused."""
        # Every stream may come from another port.
        address = peer.rpartition(":")[0]
        known = self.turned_away.pop((address, reason), None)
        times = 1 if known is None else known.times + 1
        self.turned_away[address, reason] = TurnedAway(peer, reason, round(time.time()), times)
        if len(self.turned_away) > REMEMBERED:
            del self.turned_away[next(iter(self.turned_away))]

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


async def serve_client(admission: Admission, stream: Stream, identity: str | None = None) -> None:
    """Carry one client's stream from its join to its end.

    A client with an `identity` may join under that name only.

    Raises
    ------
    JoinRefusedError
        If it may not join, or falls silent.
    """
    patience_s = MISSED_HEARTBEATS * admission.settings.network.heartbeat_interval_s
    client = await _admitted(admission, stream, identity, patience_s)
    # Listed before anything is awaited, or two of one name could pass. The welcome still
    # goes first: a stream writes in the order of the calls.
    admission.roster.add(client)
    client.reader = asyncio.current_task()
    try:
        await client.send(admission.welcome())
        await admission.roster.announce()
        admission.metrics.joined.inc()
        _tell_of_join(client, private=admission.settings.is_private)
        readiness.tell_of(admission.metrics, client)
        async with patient(stream, patience_s) as read:
            await _listen(admission, client, read)
    except TimeoutError:
        raise _silent(patience_s) from None
    except JoinRefusedError as refusal:
        if refusal.code in FAULTS:
            client.left = True
            await blame(admission.conduct, admission.roster, client, str(refusal))
        raise
    except DisconnectedError:
        pass
    except asyncio.CancelledError:
        if not client.parting:
            raise
        client.reader.uncancel()  # type: ignore[union-attr]
        raise _parted(client) from None
    finally:
        log.info("%s left", client.name, extra=event("client left", client=client.name))
        await admission.roster.remove(client)


async def _admitted(
    admission: Admission, stream: Stream, identity: str | None, patience_s: float
) -> Client:
    try:
        async with asyncio.timeout(patience_s):
            join = await stream.read()
    except TimeoutError:
        raise _silent(patience_s) from None
    return admission.admit(join, stream, identity)


def _tell_of_join(client: Client, *, private: bool) -> None:
    """Log it; where the model is private, without how many examples the client has."""
    if private:
        log.info("%s joined", client.name, extra=event("client joined", client=client.name))
        return
    log.info(
        "%s joined with %d examples", client.name, client.examples,
        extra=event("client joined", client=client.name, examples=client.examples),
    )  # fmt: skip


async def _listen(admission: Admission, client: Client, read: Read) -> None:
    """Hand on what a client sends until it leaves."""
    settings = admission.settings
    messages_per_s = settings.limits.messages_per_s
    interval_s = settings.network.heartbeat_interval_s
    bucket = Bucket(SAVED_S * messages_per_s, messages_per_s + HEARTBEATS / interval_s)
    while True:
        message = await read()
        if message is None:
            return
        kind = kind_of(message)
        if kind == "leave":
            client.left = True
            return
        if not client.uses_credit(message):
            cost = 1 + _size(message) // MESSAGE_BYTES
            if not bucket.take(cost, time.monotonic()):
                raise JoinRefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"more than {messages_per_s:g} messages a second that no round asked for",
                )
        if kind != "heartbeat":
            await admission.roster.heard_of(client)
        if kind == "readiness":
            assert isinstance(message, pb.ClientMessage)
            await readiness.heard(admission.roster, admission.metrics, client, message.readiness)
            continue
        error = await client.deliver(message)
        if error is not None and is_fault(error):
            await blame(admission.conduct, admission.roster, client, str(error))
            if client.parting:
                raise _parted(client)
        del message  # may be large, and the next one may be long in coming


def _size(message: pb.ClientMessage | Chunk) -> int:
    return message.cost_bytes if isinstance(message, Chunk) else message.ByteSize()


def _parted(client: Client) -> JoinRefusedError:
    return JoinRefusedError(grpc.StatusCode.PERMISSION_DENIED, client.parting)


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

    async def read(self) -> pb.ClientMessage | Chunk | None:
        message = await self._context.read()
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            return None
        try:
            return parse(message, pb.ClientMessage)
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

    def received_bytes(self) -> int:
        return received_bytes(self._context.peer())


Handler = Callable[[AsyncIterator[bytes], Any], Awaitable[None]]


def grpc_server(
    admission: Admission,
    identify: Identify = nobody_in_particular,
    connections: int | None = None,
) -> grpc.aio.Server:
    """Return a gRPC server that serves this admission; it has no port yet.

    It takes so many `connections` at each address, None for any number. `identify` returns the
    name that a call's context proves, None where nothing is to be proved, or raises
    `JoinRefusedError`. Messages are serialized by their senders, so that a broadcast is serialized
    once.
    """

    refused, asked = AddressCounts(), AddressCounts()
    description = admission.description()

    async def guarded(context: Any, answer: Callable[[str | None], Awaitable[T]]) -> T | None:
        address = context.peer().rpartition(":")[0]
        if refused.are_too_many(address):
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "too many streams of your address were refused; try again in a minute",
            )
        try:
            return await answer(identify(context))
        except JoinRefusedError as refusal:
            refused.count(address)
            code = refusal.code.name.lower()
            admission.metrics.join_refused.labels(code).inc()
            admission.turn_away(context.peer(), str(refusal))
            log.warning(
                "refused %s: %s", context.peer(), refusal,
                extra=event("stream refused", peer=context.peer(), reason=code,
                            detail=str(refusal)),
            )  # fmt: skip
            with suppress(grpc.aio.InternalError):  # it has gone
                await context.abort(refusal.code, refusal.told)
        return None

    async def participate(requests: AsyncIterator[bytes], context: Any) -> None:
        await guarded(context, partial(serve_client, admission, _GrpcStream(context)))

    async def describe(request: bytes, context: Any) -> bytes | None:
        async def answer(identity: str | None) -> bytes:
            address = context.peer().rpartition(":")[0]
            if asked.are_too_many(address):
                raise JoinRefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, "asked too often; try again in a minute"
                )
            asked.count(address)
            admission.check_conduct(identity or "")
            # Messages that stand one after another are read as one.
            return description + admission.state().SerializeToString()

        return await guarded(context, answer)

    options = list(SERVER_OPTIONS)
    if connections is not None:
        options.append(("grpc.max_allowed_incoming_connections", connections))
    server: grpc.aio.Server = robust_server(options)
    methods = {
        PATH.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(participate),
        DESCRIBE_PATH.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(describe),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_registered_method_handlers(SERVICE, methods)  # type: ignore[attr-defined]
    return server


async def bind(
    server: grpc.aio.Server,
    host: str,
    port: int,
    credentials: grpc.ServerCredentials | None = None,
) -> int:
    """Bind the server to an address, with TLS if there are credentials; return the port.

    Raises
    ------
    UserError
        If the port is taken or the address is not this machine's.
    """
    address = joined(host, port)
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise UserError(
            f"cannot listen on {address}: {why_not(host, port) or 'gRPC could not'}; choose "
            "another with --port or --host"
        )
    return bound
