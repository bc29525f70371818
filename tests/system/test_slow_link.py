"""A link that takes longer for one message than the server waits for one that says nothing."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from system.commands import Commands, free_port

TESTS = Path(__file__).parents[1]
# The model is 320 kB, in one message: seconds, where the server's patience is 1.5 s.
UPLINK_BYTES_PER_S = 80_000
STEP_S = 0.05
ROUNDS = 2


def carry(source: socket.socket, target: socket.socket, bytes_per_s: float) -> None:
    """Carry bytes until the source ends."""
    with suppress(OSError):
        while content := source.recv(int(bytes_per_s * STEP_S)):
            target.sendall(content)
            time.sleep(len(content) / bytes_per_s)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """A port for a server, and one that leads there over a slow uplink."""
    port = free_port()
    listener = socket.create_server(("127.0.0.1", 0))

    def relay() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                for pair in ((client, server, UPLINK_BYTES_PER_S), (server, client, 1e8)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=relay, daemon=True).start()
    yield port, listener.getsockname()[1]
    listener.close()


def test_a_client_on_a_slow_link_is_not_taken_for_one_that_is_silent(
    commands: Commands, ports: tuple[int, int]
) -> None:
    port, slow_port = ports
    task = ("--task", "system.idle_model:task")
    env = {"PYTHONPATH": str(TESTS)}
    server = commands.start(
        "server", *task, "--port", port, "--clients", 1, "--rounds", ROUNDS, "--out", "slow",
        "--scheme", "fp32", "--set", "network.heartbeat_interval_s=0.5",
        "--set", "network.return_wait_s=0", env=env,
    )  # fmt: skip
    server.wait_for("listening on")
    client = commands.start("client", *task, "--server", f"127.0.0.1:{slow_port}", env=env)
    assert (server.wait().code, client.wait().code) == (0, 0), server.err.read_text()
    rounds = json.loads((commands.folder / "slow" / "run.json").read_text())["rounds"]
    assert [record["clients"] for record in rounds] == [1] * ROUNDS
    assert min(record["seconds"] for record in rounds) > 3
    assert "trying again" not in client.out.read_text() + client.err.read_text()
