"""Strangers that connect and say nothing, and limits of open files that are soon reached."""

import asyncio
import contextlib
import json
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedaq.net import grpc_options
from fedaq_server.identity.certificates import issue
from fedaq_server.transport import open_files, service
from fuzz.raw_bytes import PREFACE, SETTINGS, frame
from system.commands import Commands, Running, free_port
from system.live import learner, live_server, settings_of, take_part

USUAL_LIMIT, STRANGERS = 1024, 1100


def limited(running: Running, soft: int, hard: int) -> Running:
    """Give a process that has just begun another limit of open files."""
    resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    return running


@contextlib.contextmanager
def strangers(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Hold connections on which nothing is ever sent."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            for _ in range(count)
        ]


def events_of(running: Running, name: str) -> list[dict[str, object]]:
    lines = map(json.loads, running.err.read_text().splitlines())
    return [line for line in lines if line["event"] == name]


def wait_for_event(running: Running, name: str) -> None:
    end = time.monotonic() + 60
    while not events_of(running, name):
        assert running.process.poll() is None, running.err.read_text()
        assert time.monotonic() < end, running.err.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module", autouse=True)
def enough_files() -> None:
    """Let this process hold as many connections as the tests need."""
    open_files.raise_limit()
    limit = open_files.limit()
    if limit is not None and limit < STRANGERS + 200:
        pytest.skip(f"{limit} open files are too few to be {STRANGERS} strangers")


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_a_crowd_of_strangers_takes_no_file_that_a_round_needs(
    commands: Commands, tls: bool
) -> None:
    """Before the clients and beside them; at the limit that most systems have, hard as well."""
    port, access = free_port(), ["--host", "127.0.0.1"]
    certs = commands.folder / "certs"
    if tls:
        issue(certs, hosts=["127.0.0.1"], clients=["anna", "bert"])
        access += ["--tls", str(certs / "server")]
    server = limited(
        commands.start(
            "server", "--json-logs", "--task", "digits", "--clients", 2, "--rounds", 4,
            "--port", port, "--out", "run", *access,
        ),
        USUAL_LIMIT, USUAL_LIMIT,
    )  # fmt: skip
    wait_for_event(server, "listening")
    with strangers(port, STRANGERS):
        wait_for_event(server, "connections full")
        for number, name in enumerate(("anna", "bert"), 1):
            own = ["--tls", certs / "clients" / name] if tls else []
            commands.start(
                "client", "--server", f"127.0.0.1:{port}", "--name", name, "--task", "digits",
                "--partition", f"{number}/2", *own,
            )  # fmt: skip
        wait_for_event(server, "round committed")
        with strangers(port, STRANGERS):
            ended = server.wait()
    assert ended.code == 0, ended.err
    assert len(events_of(server, "round committed")) == 4
    assert len(events_of(server, "connections full")) == 1


def test_the_soft_limit_is_raised_to_the_hard_one(commands: Commands) -> None:
    """60 clients, where 64 files would be too few for them."""
    port, clients = free_port(), 60
    server = limited(
        commands.start(
            "server", "--task", "digits", "--clients", clients, "--rounds", 2, "--port", port,
            "--out", "run",
        ),
        64, 2048,
    )  # fmt: skip
    server.wait_for("listening")

    async def everyone() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                part = learner(number, clients)
                group.create_task(take_part(f"127.0.0.1:{port}", f"client-{number}", part))

    asyncio.run(everyone())
    ended = server.wait()
    assert ended.code == 0, ended.err


def test_a_limit_that_leaves_no_room_for_the_clients_is_told_at_once(commands: Commands) -> None:
    server = limited(
        commands.start(
            "server", "--task", "digits", "--clients", 60, "--port", free_port(), "--out", "run"
        ),
        64, 64,
    )  # fmt: skip
    ended = server.wait()
    assert ended.code == 2
    assert (
        "fedaq: the limit of 64 open files leaves room for 0 clients, and the run waits for 60: "
        "raise it (ulimit -n," in " ".join(ended.err.split())
    )


@pytest.mark.parametrize("says", [b"", PREFACE, PREFACE + frame(SETTINGS, 0, 0, b"")])
def test_who_says_no_more_than_hello_is_dropped_and_a_client_is_not(
    says: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before HTTP/2 is agreed on by one clock, after that by another."""
    options = dict(grpc_options.SERVER_OPTIONS)
    options |= {"grpc.server_handshake_timeout_ms": 500, "grpc.max_connection_idle_ms": 700}
    monkeypatch.setattr(service, "SERVER_OPTIONS", list(options.items()))

    async def scenario() -> list[int]:
        settings = settings_of(1, rounds=6)
        async with live_server(settings, tmp_path) as (run, address):
            host, _, port = address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(says)
            honest = asyncio.create_task(take_part(address, "a", learner(0, 1, pause_s=0.4)))
            async with asyncio.timeout(20):
                await reader.read()  # to its end
            writer.close()
            assert not honest.done()
            await honest
        return [record.clients for record in run.records]

    assert asyncio.run(scenario()) == [1] * 6


def test_what_a_server_has_open_itself_is_half_of_what_is_held_back(commands: Commands) -> None:
    """The other half is for a round, for who asks for metrics, and for libraries yet to come."""
    port, seen = free_port(), []
    server = commands.start(
        "server", "--task", "digits", "--clients", 2, "--rounds", 3, "--port", port, "--out", "run",
        "--dashboard-port", 0, "--metrics-port", 0,
    )  # fmt: skip
    server.wait_for("listening")
    process = psutil.Process(server.process.pid)
    seen.append(process.num_fds())

    async def everyone() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                part = take_part(
                    f"127.0.0.1:{port}", f"client-{number}", learner(number, 2),
                    hear=lambda message: seen.append(process.num_fds()),
                )  # fmt: skip
                group.create_task(part)

    asyncio.run(everyone())
    assert server.wait().code == 0
    assert len(seen) > 3
    assert 5 < max(seen) - 2 * 2 < open_files.OWN_FILES // 2, seen
