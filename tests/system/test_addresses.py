"""Ways to write an address and a name, to commands and to the doctor."""

import socket

import pytest

from system.commands import Commands, free_port
from system.test_mistakes import said

RULE = "a client name has 1 to 64 printable characters (bytes in UTF-8), no spaces or slashes"
SHORT = ("--clients", 1, "--rounds", 1)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", pytest.param("[::1]", marks=pytest.mark.slow)])
def test_a_server_on_an_ipv6_address(host: str, commands: Commands) -> None:
    port = free_port()
    examined = commands.run("doctor", "server", "--host", host, "--port", port)
    assert f"[::1]:{port} is free, and reached from this machine only" in examined.out
    server = commands.start("server", *SHORT, "--host", host, "--port", port)
    server.wait_for(f"listening on [::1]:{port}")
    health = commands.run("health", f"http://[::1]:{port}/")
    assert (health.code, health.out) == (0, f"[::1]:{port}: SERVING\n")
    busy = commands.run("server", *SHORT, "--host", host, "--port", port)
    reason = f"[::1]:{port}: Address already in use"
    assert f"cannot listen on {reason}; choose another" in said(busy, 2)
    assert reason in commands.run("doctor", "server", "--host", host, "--port", port).out
    client = commands.run("client", "--server", f"http://[::1]:{port}")
    assert (client.code, client.err) == (0, "")
    assert server.wait().code == 0


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--server", "::1", "client.server: an IPv6 address stands in brackets before its port: "
         "[::1]:50051 (got '::1')"),
        ("--server", "https://kitchen:1", "client.server: --tls FOLDER chooses TLS, not https://"),
        ("--name", "two words", f"client.name: {RULE} (got 'two words')"),
        ("--name", "a/b", f"client.name: {RULE} (got 'a/b')"),
    ],
)  # fmt: skip
def test_the_doctor_refuses_what_the_client_refuses(
    flag: str, value: str, reason: str, commands: Commands
) -> None:
    lines = [said(commands.run(*command, flag, value), 2) for command in
             (("client",), ("doctor", "client"))]  # fmt: skip
    assert lines[0] == lines[1]
    assert reason in lines[0]


@pytest.mark.parametrize("command", [("server",), ("doctor", "server")])
def test_a_port_in_the_address_to_listen_on(command: tuple[str, ...], commands: Commands) -> None:
    sentence = said(commands.run(*command, "--host", "127.0.0.1:50051"), 2)
    assert "network.host: it is an address or a name of this machine, without a port" in sentence


def test_an_address_to_ask_after_its_health(commands: Commands) -> None:
    assert "::1: an IPv6 address stands in brackets" in said(commands.run("health", "::1"), 2)


def test_a_host_name_that_no_client_can_have(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedaq.errors import UserError
    from fedaq.settings import ClientSettings
    from fedaq.tasks.partition import WHOLE
    from fedaq_client.naming import name_of
    from fedaq_client.transport.access import PLAIN

    monkeypatch.setattr(socket, "gethostname", lambda: "kitchen pi")
    with pytest.raises(UserError, match=r"'kitchen pi': a client name has .*; choose another"):
        name_of(ClientSettings(), WHOLE, PLAIN)
