"""Who is let in, with real certificates, tokens, sockets and processes."""

import asyncio
import json
import re
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import psutil
import pytest

from fedaq import PROTOCOL_VERSION
from fedaq.codec import model
from fedaq.codec.chunks import Chunk
from fedaq.errors import FedaqError, UserError
from fedaq.modules.signature import spec_of
from fedaq.net.credentials import Certificates, client_certificates, client_context
from fedaq.net.grpc_options import PATH
from fedaq.tasks import load_task
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.transport.access import PLAIN, Access
from fedaq_client.transport.connection import connect
from fedaq_server.identity.certificates import issue
from fedaq_server.identity.tokens import make_tokens
from system.commands import Commands, Running, free_port

PATIENCE_S = 60.0
WIDE = {"COLUMNS": "500"}


@dataclass(frozen=True)
class Server:
    """A server process, and what was made for its clients."""

    running: Running
    port: int
    certs: Path

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def tells(self, sentence: str) -> None:
        """Wait until the operator reads this."""
        self.running.wait_for(sentence)


def start(commands: Commands, certs: Path, out: str, *flags: object) -> Server:
    port = free_port()
    running = commands.start(
        "server", "--task", "digits", "--clients", 2, "--rounds", 1, "--host", "0.0.0.0",
        "--port", port, "--tls", certs / "server", "--out", out,
        "--set", "network.log_tls_failures=true", *flags, env=WIDE,
    )  # fmt: skip
    return Server(running, port, certs)


@pytest.fixture(scope="module")
def servers(lasting_commands: Commands) -> Iterator[tuple[Server, Server]]:
    """One that wants certificates and one that wants tokens."""
    folder = lasting_commands.folder
    certs = folder / "certs"
    issue(certs, hosts=["127.0.0.1"], clients=["kitchen", "garden", "stolen"])
    issue(certs, revoked=["stolen"])
    issue(certs, clients=["old"], days=0)
    issue(folder / "others", clients=["kitchen"])
    make_tokens(folder / "tokens", ["kitchen", "garden"])
    both = (
        start(lasting_commands, certs, "by-certificate"),
        start(lasting_commands, certs, "by-token", "--tokens", folder / "tokens"),
    )
    for server in both:
        server.running.wait_for("listening")
    yield both


@pytest.fixture(scope="module")
def server(servers: tuple[Server, Server]) -> Server:
    """The one that wants certificates."""
    return servers[0]


@pytest.fixture(scope="module")
def token_server(servers: tuple[Server, Server]) -> Server:
    """The one that wants tokens."""
    return servers[1]


def join(address: str, access: Access, name: str) -> pb.ServerMessage | None:
    """Try to join; return the server's first message and leave."""
    spec = spec_of(load_task("digits", None).model())
    message = pb.ClientMessage(
        join=pb.Join(
            protocol_version=PROTOCOL_VERSION,
            client=name,
            examples=10,
            model=model.to_message(spec),
        )
    )

    async def attempt() -> pb.ServerMessage | None:
        async with connect(address, PATIENCE_S, access) as link:
            await link.send(message.SerializeToString())
            first = await link.receive()
            assert not isinstance(first, Chunk)
            await link.send(pb.ClientMessage(leave=pb.Leave()).SerializeToString())
            return first

    while True:
        try:
            return asyncio.run(attempt())
        except FedaqError as error:
            # gRPC loses a refusal that comes while the client writes; a client tries again.
            if "Internal error from Core" not in str(error):
                raise


def shown(folder: Path, certificates: Path, role: str = "client") -> Certificates:
    """Return a client that shows these certificates, right or wrong, and trusts the server's CA."""
    folder.mkdir()
    for end in ("crt", "key"):
        shutil.copy(certificates / f"{role}.{end}", folder / f"client.{end}")
    shutil.copy(certificates.parents[role == "client"] / "ca.crt", folder)
    ca, certificate, key = (
        (folder / name).read_bytes() for name in ("ca.crt", "client.crt", "client.key")
    )
    return Certificates(folder, ca, certificate, key)


def none(server: Server, folder: Path) -> Certificates:
    folder.mkdir()
    shutil.copy(server.certs / "ca.crt", folder)
    return client_certificates(folder)


def of_another_authority(server: Server, folder: Path) -> Certificates:
    own = shown(folder, server.certs.parent / "others" / "clients" / "kitchen")
    shutil.copy(server.certs / "ca.crt", folder)
    return replace(own, ca=(server.certs / "ca.crt").read_bytes())


def expired(server: Server, folder: Path) -> Certificates:
    return shown(folder, server.certs / "clients" / "old")


def the_servers(server: Server, folder: Path) -> Certificates:
    return shown(folder, server.certs / "server", "server")


Case = Callable[[Server, Path], Certificates]
REFUSED: dict[Case, tuple[str, str]] = {
    none: ("it showed no certificate", "wants a certificate, and"),
    of_another_authority: ("its certificate is not signed by our ca.crt", "does not accept"),
    expired: ("its certificate has expired", "does not accept"),
    the_servers: ("its certificate is not a client's", "does not accept"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_certificate_is_refused(case: Case, server: Server, tmp_path: Path) -> None:
    operator, client = REFUSED[case]
    certificates = case(server, tmp_path / "shown")
    with pytest.raises(UserError, match=client):
        join(server.address, Access(certificates), "kitchen")
    server.tells(operator)
    assert re.search(
        rf"refused (ipv4:127\.0\.0\.1|ipv6:\[::1\]):\d+: {operator}",
        server.running.out.read_text(),
    )


@pytest.mark.parametrize("case", REFUSED)
def test_a_stranger_is_told_nothing(case: Case, server: Server, tmp_path: Path) -> None:
    certificates = case(server, tmp_path / "shown")
    context = client_context(certificates.folder, with_certificate=bool(certificates.certificate))

    async def listen() -> bytes:
        reader, writer = await asyncio.open_connection(
            "localhost", server.port, ssl=context, server_hostname="localhost"
        )
        try:
            return await reader.read()
        except ssl.SSLError:
            return b""
        finally:
            writer.close()

    assert asyncio.run(listen()) == b""


def test_the_right_certificate_is_let_in(server: Server) -> None:
    access = Access(client_certificates(server.certs / "clients" / "kitchen"))
    first = join(server.address, access, "kitchen")
    assert first is not None
    assert first.WhichOneof("kind") == "welcome"


def test_a_certificate_speaks_for_nobody_else(server: Server) -> None:
    access = Access(client_certificates(server.certs / "clients" / "kitchen"))
    with pytest.raises(UserError) as refused:
        join(server.address, access, "garden")
    assert str(refused.value) == "the server refused this client: permission denied"
    server.tells("kitchen tried to join as 'garden'")


def test_a_revoked_certificate_is_refused(server: Server) -> None:
    access = Access(client_certificates(server.certs / "clients" / "stolen"))
    with pytest.raises(UserError, match="not authenticated") as refused:
        join(server.address, access, "stolen")
    assert "revoked" not in str(refused.value)
    server.tells("this certificate of stolen is revoked")


def test_a_client_knows_its_server(server: Server, tmp_path: Path) -> None:
    right = client_certificates(server.certs / "clients" / "kitchen")
    with pytest.raises(UserError, match=r"fedaq certs DIR --host 127\.0\.0\.2"):
        join(f"127.0.0.2:{server.port}", Access(right), "kitchen")
    server.tells("it hung up during the handshake; it may not trust our server.crt")
    other = server.certs.parent / "others" / "clients" / "kitchen"
    with pytest.raises(UserError, match=r"is not signed by .*others/clients/kitchen/ca\.crt"):
        join(server.address, Access(client_certificates(other)), "kitchen")


def test_a_client_without_tls_is_told_of_it(server: Server) -> None:
    with pytest.raises(UserError, match=r"speaks TLS: .* --tls FOLDER"):
        join(server.address, PLAIN, "kitchen")
    server.tells("it does not speak TLS")


def test_a_server_without_tls_is_told_of(server: Server, commands: Commands) -> None:
    port = free_port()
    commands.start("server", "--port", port).wait_for("listening")
    access = Access(client_certificates(server.certs / "clients" / "kitchen"))
    with pytest.raises(UserError, match="does not speak TLS; was it started with --tls"):
        join(f"127.0.0.1:{port}", access, "kitchen")


@pytest.mark.parametrize("asked", [False, True])
def test_standard_error_is_left_alone_unless_asked(asked: bool, commands: Commands) -> None:
    """File descriptor 2 of the server is the very file that it was started with."""
    certs, port = commands.folder / "certs", free_port()
    issue(certs)
    server = commands.start(
        "server", "--port", port, "--tls", certs / "server", "--json-logs",
        "--set", f"network.log_tls_failures={str(asked).lower()}",
    )  # fmt: skip
    wait_until_it_says(server.err, "listening on")
    descriptor = Path(f"/proc/{server.process.pid}/fd/2").readlink()
    assert (descriptor != server.err) is asked
    with socket.create_connection(("localhost", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        stranger.recv(1)
    if asked:
        wait_until_it_says(server.err, "it does not speak TLS")
    server.signal(signal.SIGTERM)
    lines = server.wait().err.splitlines()
    levels = [json.loads(line)["level"] for line in lines]
    assert levels == ["info", *["warning"] * asked, *levels[1 + asked :]]
    assert any("it does not speak TLS" in line for line in lines) is asked


def wait_until_it_says(path: Path, text: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while text not in path.read_text():
        assert time.monotonic() < end, path.read_text()
        time.sleep(0.02)


def token_of(server: Server, name: str) -> str:
    return (server.certs.parent / f"{name}.token").read_text().strip()


def by_token(server: Server, token: str) -> Access:
    return Access(Certificates(server.certs, (server.certs / "ca.crt").read_bytes()), token)


def test_the_right_token_is_let_in(token_server: Server) -> None:
    access = by_token(token_server, token_of(token_server, "kitchen"))
    assert access.name == "kitchen"
    first = join(token_server.address, access, "kitchen")
    assert first is not None
    assert first.WhichOneof("kind") == "welcome"


def test_a_token_speaks_for_nobody_else(token_server: Server) -> None:
    access = by_token(token_server, token_of(token_server, "kitchen"))
    with pytest.raises(UserError) as refused:
        join(token_server.address, access, "garden")
    assert str(refused.value) == "the server refused this client: permission denied"
    token_server.tells("kitchen tried to join as 'garden'")


@pytest.mark.parametrize(
    ("make", "operator"),
    [
        (lambda server: "", "it showed no token"),
        (lambda server: "kitchen:", "its token is none of those in --tokens"),
        (lambda server: "kitchen:guess", "its token is none of those in --tokens"),
        (lambda server: "nobody:guess", "its token is none of those in --tokens"),
        (
            # Another's secret under one's own name.
            lambda server: "garden:" + token_of(server, "kitchen").rpartition(":")[2],
            "its token is none of those in --tokens",
        ),
    ],
    ids=["none", "empty", "wrong", "nobody's", "another's"],
)
def test_a_wrong_token_is_refused(
    make: Callable[[Server], str], operator: str, token_server: Server
) -> None:
    with pytest.raises(UserError) as refused:
        join(token_server.address, by_token(token_server, make(token_server)), "garden")
    said = str(refused.value)
    assert said.startswith("the server refused this client: not authenticated; ")
    assert "guess" not in token_server.running.out.read_text()
    token_server.tells(operator)


def test_the_wire_says_no_more_than_that(token_server: Server) -> None:
    """What a stranger sees without our client."""
    ca = (token_server.certs / "ca.crt").read_bytes()
    with grpc.secure_channel(token_server.address, grpc.ssl_channel_credentials(ca)) as channel:
        call = channel.stream_stream(PATH)(  # type: ignore[call-arg]
            iter([b""]), metadata=(("authorization", "Bearer x:y"),), timeout=PATIENCE_S
        )
        with pytest.raises(grpc.RpcError) as refused:
            list(call)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.details() == "not authenticated"


def secrets_of(folder: Path) -> list[bytes]:
    """Return what must be nowhere but in its file."""
    keys = [line for path in folder.rglob("*.key") for line in path.read_bytes().splitlines()]
    tokens = [path.read_bytes().strip().rpartition(b":")[2] for path in folder.rglob("*.token")]
    found = [line for line in keys if not line.startswith(b"-----")] + tokens
    assert len(found) > 8
    return found


def test_the_right_ones_train_and_no_secret_leaks(
    servers: tuple[Server, Server], lasting_commands: Commands
) -> None:
    by_certificate, by_tokens = servers
    folder, certs = lasting_commands.folder, by_certificate.certs
    only_ca = folder / "only-ca"
    none(by_tokens, only_ca)

    def client(server: Server, part: str, *flags: object, **env: str) -> Running:
        return lasting_commands.start(
            "client",
            "--server",
            server.address,
            "--partition",
            part,
            *flags,
            env=env,
            new=True,
        )

    clients = [
        client(by_certificate, "1/2", "--tls", certs / "clients/kitchen"),
        client(by_certificate, "2/2", "--tls", certs / "clients/garden"),
        client(by_tokens, "1/2", "--tls", only_ca, "--token-file", folder / "kitchen.token"),
        client(by_tokens, "2/2", "--tls", only_ca, FEDAQ_TOKEN=token_of(by_tokens, "garden")),
    ]
    secrets = secrets_of(folder)
    everybody = [*(server.running for server in servers), *clients]
    command_lines = b""
    while any(running.process.poll() is None for running in clients):
        for running in everybody:
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                line = psutil.Process(running.process.pid).cmdline()
                command_lines += " ".join(line).encode()
        time.sleep(0.1)
    for running in everybody:
        ended = running.wait()
        assert (ended.code, ended.err) == (0, ""), ended
        assert "Traceback" not in ended.out
    assert "kitchen: " in clients[0].out.read_text()
    assert "garden: " in clients[3].out.read_text()
    assert b"--token-file" in command_lines
    assert not [secret for secret in secrets if secret in command_lines]
    written = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".key", ".token")
    ]
    assert {"run.json", "model.safetensors"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content], path
    for run in ("by-certificate", "by-token"):
        network = json.loads((folder / run / "run.json").read_text())["settings"]["network"]
        assert not set(network) & {"tls", "tokens", "token_file", "insecure"}
