"""SIGINT, SIGTERM and SIGHUP end a command, and everything it started, within seconds."""

import signal
import time
from pathlib import Path

import pytest

from system.commands import Commands, Running, free_port

# A run that would go on for a minute longer.
LONG = ("--clients", 2, "--rounds", 100_000)
# What the command gives itself (fedaq.process.stopping.STOP_GRACE_S), and as much again for a
# busy machine.
SECONDS = 10.0

# A task whose training cannot be interrupted.
STUCK_TASK = """
import time
from dataclasses import replace
from fedaq.tasks.digits import task as digits

def train(model, data, training, seed):
    time.sleep(60)
    return 1.0

task = replace(digits, train=train)
"""


def stopped(command: Running, number: int) -> None:
    """Check how a command ends on a signal."""
    command.signal(number)
    ended = command.wait(SECONDS)
    assert (ended.code, ended.err) == (128 + number, "fedaq: stopped\n")
    assert "Traceback" not in ended.out
    assert command.group() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_in_its_rounds(number: int, commands: Commands) -> None:
    run = commands.start("run", *LONG, "--out", "new")
    run.wait_for("round 2/")
    assert len(run.group()) == 4  # the command, a server and two clients
    stopped(run, number)
    assert (commands.folder / "new" / "run.json").exists()


def test_a_run_that_has_hardly_begun(commands: Commands) -> None:
    """The signal comes while it starts processes, or before they are ready for it."""
    for pause_s in (0.4, 0.7, 1.0):
        run = commands.start("run", *LONG, "--out", f"new-{pause_s}", new=True)
        time.sleep(pause_s)
        run.signal(signal.SIGTERM)
        ended = run.wait(SECONDS)
        # Before Python has come to our code, a signal ends it without a word.
        assert (ended.code, ended.err) in ((143, "fedaq: stopped\n"), (-signal.SIGTERM, ""))
        assert run.group() == []


def test_a_run_with_clients_deep_in_training(commands: Commands) -> None:
    (commands.folder / "stuck.py").write_text(STUCK_TASK)
    run = commands.start("run", "--task", "stuck:task", *LONG, "--out", "new")
    logs = [commands.folder / "new" / "logs" / f"client-{number}.log" for number in (1, 2)]
    _wait_for_training(logs)
    stopped(run, signal.SIGTERM)


def test_both_sides_by_hand(commands: Commands) -> None:
    """A server that is stopped says so to its clients."""
    port = free_port()
    server = commands.start("server", "--port", port, *LONG, "--out", "new")
    clients = [
        commands.start("client", "--server", f"127.0.0.1:{port}", "--partition", part)
        for part in ("1/2", "2/2")
    ]
    server.wait_for("round 2/")
    stopped(clients[0], signal.SIGTERM)
    assert server.process.poll() is None
    stopped(server, signal.SIGINT)
    clients[1].wait_for("the server stopped; trying again in")
    clients[1].signal(signal.SIGTERM)
    ended = clients[1].wait(SECONDS)
    assert ended.code == 128 + signal.SIGTERM
    assert "Traceback" not in ended.err


def test_a_client_that_finds_no_server(commands: Commands) -> None:
    client = commands.start("client", "--server", f"127.0.0.1:{free_port()}")
    client.wait_for("examples")
    stopped(client, signal.SIGINT)


def _wait_for_training(logs: list[Path]) -> None:
    """Wait until the clients have begun, and give them the moment until they train."""
    end = time.monotonic() + 60
    while not all(log.exists() and "examples" in log.read_text() for log in logs):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1.0)
