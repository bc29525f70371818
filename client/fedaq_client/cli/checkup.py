"""What ``fedaq doctor client`` checks."""

import asyncio
import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc

from fedaq import PROTOCOL_VERSION
from fedaq.cli.checkup import Finding, certificates, look, machine, memory, ok, survived, wrong
from fedaq.cli.wording import sentence_of
from fedaq.codec import model
from fedaq.errors import FedaqError, UserError, printable
from fedaq.net.addresses import host_and_port
from fedaq.net.grpc_options import DESCRIBE_PATH
from fedaq.settings import Settings
from fedaq.tasks import initial_model, load_task, read_data, signature_of
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.naming import name_of, part_of
from fedaq_client.privacy import can_mask
from fedaq_client.sharing import local_data
from fedaq_client.transport.access import Access, access_of, proxy_of
from fedaq_client.transport.connection import channel_to, metadata_of
from fedaq_client.transport.diagnosis import tls_problem
from fedaq_client.transport.proxies import opened, shown, unused_variables, way_hint

PATIENCE_S = 5.0
# Below, two clocks differ by what a message takes, or by what nobody is harmed by.
CLOCK_DIFFERENCE_S = 30.0
NOT_FEDAQ = "what answers there is not fedaq's server, or is older than this client"


def client_findings(settings: Settings) -> Iterator[Finding]:
    """Check one thing after the other; what cannot be told without an earlier one is left out."""
    yield from machine()
    if settings.privacy.secure_aggregation:
        yield privacy(settings, masks=can_mask())
    elif settings.is_private:
        yield look(
            "privacy",
            "with privacy.epsilon alone the server adds the noise, and sees each update",
            "clients add it: --set privacy.secure_aggregation=true on both sides",
        )
    yield from survived("reach", lambda: _federation(settings))


def privacy(settings: Settings, *, masks: bool) -> Finding:
    """Say whether this client can mask its updates, and what a server is trusted with then."""
    if not masks:
        return wrong(
            "privacy",
            "privacy.secure_aggregation needs the package cryptography, which is not here",
            "pip install 'fedaq[client,privacy]'",
        )
    if not settings.network.proves_certificates or settings.network.token_file is not None:
        return look(
            "privacy",
            "updates are masked, but no certificates prove whose keys are whose: the server could "
            "invent clients",
            "give each client a certificate: fedaq certs (docs/how-to/security.md)",
        )
    return ok("privacy", "updates are masked, by keys that certificates prove")


def _federation(settings: Settings) -> Iterator[Finding]:
    address, *others = settings.client.servers
    proxy = proxy_of(settings.network, address)
    described = None
    try:
        access = access_of(settings.network, address)
        name = name_of(settings.client, part_of(settings.client), access)
    except UserError as error:
        yield wrong("identity", str(error))
        yield reach(address, proxy)
    else:
        yield identity(access, name)
        if access.certificates is not None:
            yield certificates(access.certificates, time.time())
        yield from _proxy(proxy)
        reached = reach(address, proxy)
        yield reached
        if reached.verdict == "ok":
            described = yield from _server(address, access)
    for other in others:
        yield reach(other, proxy_of(settings.network, other))
    yield from survived("task", lambda: _task(settings, described))


def identity(access: Access, name: str) -> Finding:
    """Say as whom this client will join, and by what it proves that."""
    proof = "a token" if access.token else "a certificate" if access.name else "nothing"
    return ok("identity", f"{name}, proved by {proof}")


def _proxy(proxy: str) -> Iterator[Finding]:
    """Say what of proxies is set here, if anything is."""
    unused = ", ".join(unused_variables())
    if proxy:
        yield ok("proxy", f"the way to the server goes through {shown(proxy)}")
    elif unused:
        yield ok("proxy", f"{unused} names one; it is not used on the way to the server")


def reach(address: str, proxy: str) -> Finding:
    """Open a connection to the server's port, and say what the network answers."""
    hint = way_hint(address, proxy)
    if proxy:
        return _reach_through_proxy(address, proxy, hint)
    found = _reach_directly(address)
    return replace(found, remedy=found.remedy + hint) if found.verdict == "wrong" else found


def _reach_through_proxy(address: str, proxy: str, hint: str) -> Finding:
    host, port = host_and_port(address)
    began = time.monotonic()
    try:
        asyncio.run(_opened_and_closed(host, int(port), proxy))
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return wrong(
            "reach",
            f"{address} through the proxy {shown(proxy)}: {reason}",
            f"is the proxy's address right, and does it let this client to that port?{hint}",
        )
    return ok("reach", f"{address} after {1000 * (time.monotonic() - began):.0f} ms")


async def _opened_and_closed(host: str, port: int, proxy: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        _, writer = await opened(host, port, proxy)
        writer.close()


def _reach_directly(address: str) -> Finding:
    host, port = host_and_port(address)
    try:
        places = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError:
        return wrong(
            "reach",
            f"there is no address for the name {host}",
            "is it spelled right? Try the server's IP address; check /etc/resolv.conf",
        )
    began = time.monotonic()
    try:
        socket.create_connection((host, int(port)), PATIENCE_S).close()
    except ConnectionRefusedError:
        return wrong(
            "reach",
            f"{places[0][4][0]} is there, and nobody listens on port {port}",
            "start fedaq server, with --host 0.0.0.0 to be reached from other machines; is it "
            "the right port?",
        )
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror
        return wrong(
            "reach",
            f"{places[0][4][0]}, port {port}: {reason}",
            "are both in the same network, is the server switched on, does a firewall close "
            "the port?",
        )
    return ok("reach", f"{address} after {1000 * (time.monotonic() - began):.0f} ms")


@dataclass(frozen=True)
class Described:
    """What a server says of itself, and when: seconds since 1970, by the client's clock."""

    description: pb.Description
    asked_s: float
    answered_s: float


async def describe(address: str, access: Access) -> Described:
    """Ask the server about itself.

    Raises
    ------
    UserError
        If TLS does not come about, or the server does not know this client.
    FedaqError
        If it does not answer.
    """
    problem = await tls_problem(address, access)
    if problem is not None:
        raise UserError(problem)
    async with channel_to(address, access) as channel:
        ask: Any = channel.unary_unary(
            DESCRIBE_PATH,
            request_serializer=pb.DescribeRequest.SerializeToString,
            response_deserializer=pb.Description.FromString,
        )
        asked_s = time.time()
        try:
            answer = await ask(
                pb.DescribeRequest(), timeout=PATIENCE_S, metadata=metadata_of(access)
            )
        except grpc.aio.AioRpcError as error:
            raise _unanswered(error) from None
        if answer is None:  # what gRPC makes of bytes that are no such message
            raise UserError(NOT_FEDAQ)
        return Described(answer, asked_s, time.time())


def _unanswered(error: grpc.aio.AioRpcError) -> FedaqError:
    details = printable(error.details() or error.code().name)
    if error.code() == grpc.StatusCode.UNAUTHENTICATED:
        return UserError(f"the server does not know this client: {details}; its log says why")
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return UserError(NOT_FEDAQ)
    return FedaqError(f"no answer: {details}")


def clocks(described: Described) -> Finding:
    """Compare the two clocks; certificates are judged by either."""
    middle_s = (described.asked_s + described.answered_s) / 2
    ahead_s = middle_s - described.description.unix_time_s
    says = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if not abs(ahead_s) <= CLOCK_DIFFERENCE_S:  # nor where it is no number
        return look(
            "both clocks", says, "set the wrong one: sudo timedatectl set-ntp true; logs cannot be "
            "compared, and certificates may seem not to be valid"
        )  # fmt: skip
    return ok("both clocks", says)


def _server(address: str, access: Access) -> Generator[Finding, None, pb.Description | None]:
    """Check what the server says of itself, and return that."""
    try:
        described = asyncio.run(describe(address, access))
    except FedaqError as error:
        yield wrong("server", str(error))
        return None
    its = described.description
    says = (
        f"{printable(its.software)}, task {printable(its.task)}, round {its.round} of "
        f"{its.rounds} is over, {its.clients} clients are there"
    )
    if its.protocol_version != PROTOCOL_VERSION:
        yield wrong(
            "server",
            f"{says}; it speaks protocol {its.protocol_version}, this client {PROTOCOL_VERSION}",
            "install the same fedaq on both",
        )
    else:
        yield ok("server", says)
    yield clocks(described)
    return its


def _task(settings: Settings, its: pb.Description | None) -> Iterator[Finding]:
    try:
        task = load_task(settings.task, settings.data)
        module = initial_model(task, settings.seed, settings.start_from)
        spec = signature_of(task, module)
    except Exception as error:
        yield wrong("task", sentence_of(error), f"fedaq check-task {settings.task} says more")
        return
    if its is not None:
        try:
            difference = spec.difference(model.from_message(its.model))
        except ValueError as error:
            difference = str(error)
        if difference is not None:
            yield wrong(
                "task",
                f"the model is not the server's: {difference} (here, and there)",
                f"give --task the server's task, {printable(its.task)}, in the same version",
            )
        else:
            yield ok("task", f"{settings.task}, the model is the server's")
    else:
        yield ok("task", settings.task)
    try:
        part = part_of(settings.client)
        everything = read_data(task, "train_data", settings.data)
        mine = local_data(everything, part, settings.partition, settings.seed)
        yield ok("data", f"{len(mine):,} examples are this client's, of {len(everything):,} here")
    except Exception as error:
        yield wrong("data", sentence_of(error), f"fedaq check-task {settings.task} says more")
    yield memory(spec.parameters)
