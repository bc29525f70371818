"""Proxy variables of the environment stand in no way; a proxy is used where a setting asks."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedaq.settings import load_settings
from fedaq_client.cli.checkup import client_findings, describe
from fedaq_client.transport.access import PLAIN, access_of
from fedaq_client.transport.proxies import way_hint
from fedaq_server.identity.certificates import issue
from system.commands import Commands, free_port
from system.test_mistakes import said

NAMES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
VARIABLES = [*NAMES, *(name.upper() for name in NAMES)]
DEAD = f"http://127.0.0.1:{free_port()}"
ALL_DEAD = dict.fromkeys(VARIABLES, DEAD)
# Nobody but the proxy knows where that is.
ELSEWHERE = "fedaq.invalid"


@dataclass
class Proxy:
    """Opens the way to this machine, whatever host it is asked for."""

    port: int = 0
    answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://me:secret@127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        writer.write(self.answer)
        if b"200" not in self.answer:
            writer.close()
            return
        port = int(head.split()[1].rpartition(":")[2])
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(passed_on(reader, there_writer), passed_on(there_reader, writer))


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    found, loop = Proxy(), asyncio.new_event_loop()

    async def begin() -> None:
        server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
        found.port = server.sockets[0].getsockname()[1]

    loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield found
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture(scope="module")
def port(lasting_commands: Commands) -> int:
    """The port of a server that waits for clients."""
    port = free_port()
    server = lasting_commands.start("server", "--clients", 3, "--port", port, "--out", "waiting")
    server.wait_for("listening on")
    return port


@pytest.fixture(scope="module")
def tls_port(lasting_commands: Commands) -> int:
    """The port of one with TLS."""
    port, folder = free_port(), lasting_commands.folder
    issue(folder / "certs", hosts=[ELSEWHERE], clients=["kitchen"])
    server = lasting_commands.start(
        "server", "--clients", 3, "--port", port, "--out", "tls", "--tls", folder / "certs/server"
    )
    server.wait_for("listening on")
    return port


# ---- Variables -----------------------------------------------------------------


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_stands_in_no_way(
    variable: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, DEAD)
    found = asyncio.run(describe(f"127.0.0.1:{port}", PLAIN))
    assert found.description.clients == 0


@pytest.mark.slow
def test_a_whole_run_health_and_the_doctor_with_all_of_them(port: int, commands: Commands) -> None:
    run = commands.run("run", "--clients", 2, "--rounds", 2, env=ALL_DEAD)
    assert (run.code, run.err) == (0, "")
    checked = commands.run("check-task", "digits", env=ALL_DEAD)
    assert (checked.code, checked.err) == (0, "")
    health = commands.run("health", f"localhost:{port}", env=ALL_DEAD)
    assert (health.code, health.err) == (0, "")
    doctor = commands.run("doctor", "client", "--server", f"127.0.0.1:{port}", env=ALL_DEAD)
    assert (doctor.code, doctor.err) == (0, "")
    assert f"{NAMES[0]}, GRPC_PROXY, https_proxy, HTTPS_PROXY" in doctor.out
    assert "names one; it is not used on the way to the server" in doctor.out


def test_a_client_that_finds_no_server_names_the_variable(commands: Commands) -> None:
    ended = commands.run(
        "client", "--server", f"{ELSEWHERE}:1", "--insecure", "--give-up-after", 0.2,
        env={"https_proxy": DEAD},
    )  # fmt: skip
    sentence = said(ended, 1)
    assert "(--server host:port); https_proxy names a proxy, which is not used: if only" in sentence
    assert sentence.endswith("--set network.proxy=http://host:port\n")


def test_the_hint_is_given_where_a_proxy_may_be_the_reason() -> None:
    other, this = "192.168.1.10:50051", "localhost:50051"
    assert way_hint(other, "", {}) == ""
    assert way_hint(this, "", {"http_proxy": DEAD}) == ""
    assert "HTTP_PROXY, all_proxy names" in way_hint(
        other, "", {"all_proxy": DEAD, "HTTP_PROXY": DEAD}
    )
    through = "http://me:secret@proxy:3128"
    assert way_hint(other, through, {}) == "; the way goes through network.proxy, proxy:3128"
    assert way_hint(other, through, {"no_proxy": "192.168.1.10"}).endswith(
        "and past it to the servers that no_proxy names"
    )


# ---- The setting ---------------------------------------------------------------


def test_a_run_through_the_proxy_that_a_setting_asks_for(proxy: Proxy, commands: Commands) -> None:
    port = free_port()
    server = commands.start("server", "--clients", 1, "--rounds", 2, "--port", port)
    server.wait_for("listening on")
    options = ("--server", f"{ELSEWHERE}:{port}", "--insecure")
    through = ("--set", f"network.proxy={proxy.address}")
    doctor = commands.run("doctor", "client", *options, *through)
    assert (doctor.code, doctor.err) == (0, "")
    assert f"the way to the server goes through 127.0.0.1:{proxy.port}\n" in doctor.out
    client = commands.run("client", *options, *through)
    assert (client.code, client.err) == (0, "")
    assert server.wait().code == 0
    assert {head.split()[1] for head in proxy.asked} == {f"{ELSEWHERE}:{port}"}
    assert all("proxy-authorization: basic bwu6c2vjcmv0" in head.lower() for head in proxy.asked)
    assert "secret" not in doctor.out + client.out


def test_this_machine_is_reached_without_it(port: int, proxy: Proxy) -> None:
    settings = load_settings(environment={}, flags={"network.proxy": proxy.address})
    address = f"localhost:{port}"
    asyncio.run(describe(address, access_of(settings.network, address, {})))
    assert proxy.asked == []


@pytest.mark.parametrize("with_tls", [True, False])
def test_tls_through_a_proxy(
    with_tls: bool, tls_port: int, proxy: Proxy, lasting_commands: Commands
) -> None:
    certificates = lasting_commands.folder / "certs" / "clients" / "kitchen"
    more = {"network.tls": certificates} if with_tls else {"network.insecure": True}
    settings = load_settings(
        environment={},
        flags={
            "network.proxy": proxy.address, "client.server": f"{ELSEWHERE}:{tls_port}", **more
        },
    )  # fmt: skip
    found = {finding.subject: finding for finding in client_findings(settings)}
    assert found["reach"].verdict == "ok"
    if with_tls:
        assert found["server"].verdict == "ok"
    else:
        assert "speaks TLS: give this client certificates" in found["server"].says


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "it does not open the way: 403 Forbidden"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "it does not open the way"),
        (b"220", "it does not answer as a proxy over HTTP does"),
        (b"", "it does not answer as a proxy over HTTP does"),
    ],
)
def test_a_proxy_that_does_not_open_the_way(answer: bytes, reason: str, proxy: Proxy) -> None:
    proxy.answer = answer
    settings = load_settings(
        environment={},
        flags={"network.proxy": proxy.address, "client.server": f"{ELSEWHERE}:1",
               "network.insecure": True},
    )  # fmt: skip
    found = {finding.subject: finding for finding in client_findings(settings)}
    assert found["reach"].verdict == "wrong"
    assert found["reach"].says.startswith(
        f"{ELSEWHERE}:1 through the proxy 127.0.0.1:{proxy.port}: {reason}"
    )
    assert "network.proxy" in found["reach"].remedy


def test_a_proxy_that_is_none_is_not_repeated_with_its_password(commands: Commands) -> None:
    sentence = said(commands.run("client", "--set", "network.proxy=proxy"), 2)
    assert "network.proxy: it is http://host:port, for example" in sentence


def test_how_a_server_was_reached_is_not_kept(commands: Commands, tmp_path: Path) -> None:
    ended = commands.run(
        "run", "--engine", "local", "--clients", 1, "--rounds", 1, "--out", "new",
        "--set", f"network.proxy={DEAD}",
    )  # fmt: skip
    assert ended.code == 0
    assert DEAD not in (tmp_path / "new" / "run.json").read_text()
