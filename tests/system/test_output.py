"""What a command says may get lost: a terminal that has gone, a full disk, closed descriptors.

A run goes on without it. A command that was called for what it says ends with one line.
"""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedaq.process import outputs
from system.commands import Running, free_port
from system.test_stopping import LONG, SECONDS

SHORT = ("--clients", "1", "--rounds", "3")
# As in most people's shells: lines wait in Python's buffers, unless it is a terminal.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if "FEDAQ" not in name and name != "PYTHONUNBUFFERED"
}
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start commands with whatever standard streams; each is the first of its process group."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: object, **streams: Any) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-m", "fedaq", *map(str, arguments)]
        process = subprocess.Popen(
            [*streams.pop("under", []), *command],
            cwd=tmp_path, env=ENVIRONMENT, start_new_session=True, **streams,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        for pid in Running(process, tmp_path, tmp_path).group():
            os.kill(pid, signal.SIGKILL)
        process.wait()


def is_whole(folder: Path, rounds: int) -> bool:
    run = json.loads((folder / "run.json").read_text())
    return bool(run["finished"]) and len(run["rounds"]) == rounds


def group_of(process: "subprocess.Popen[bytes]") -> list[int]:
    return Running(process, Path(), Path()).group()


def wait_until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


# ---- A full disk ---------------------------------------------------------------


LINES, JSON = (), ("--json-logs",)


@pytest.mark.parametrize(
    ("servers", "clients"),
    [(LINES, JSON), pytest.param(JSON, LINES, marks=pytest.mark.slow)],
    ids=["lines and json", "json and lines"],
)
def test_both_sides_go_on_where_the_disk_of_their_words_is_full(
    servers: tuple[str, ...], clients: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    port = free_port()
    with Path("/dev/full").open("wb") as full:
        streams = {"stdin": subprocess.DEVNULL, "stdout": full, "stderr": full}
        server = start("server", *SHORT, "--port", port, "--out", "new", *servers, **streams)
        client = start("client", "--server", f"127.0.0.1:{port}", *clients, **streams)
        assert (client.wait(90), server.wait(90)) == (0, 0)
    assert is_whole(tmp_path / "new", 3)


@pytest.mark.slow
def test_a_full_disk_where_failed_handshakes_are_logged(start: Start, tmp_path: Path) -> None:
    """There a thread reads standard error and passes it on."""
    with Path("/dev/full").open("wb") as full:
        run = start(
            "run", *SHORT, "--out", "new", "--set", "network.log_tls_failures=true",
            stdout=full, stderr=full,
        )  # fmt: skip
        assert run.wait(90) == 0
    assert is_whole(tmp_path / "new", 3)


def test_a_comparison_goes_on_where_the_disk_of_its_words_is_full(
    start: Start, tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        comparison = start(
            "compare", "--scheme", "fp32", "--seeds", 1, "--target", 0.1, *SHORT, "--out", "new",
            stdout=full, stderr=full,
        )  # fmt: skip
        assert comparison.wait(90) == 0
    assert (tmp_path / "new" / "compare.json").exists()


@pytest.mark.parametrize("command", ["settings", "radio", "--version", "--help"])
def test_a_command_called_for_its_words_says_that_they_are_lost(command: str, start: Start) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start(command, stdout=full, stderr=subprocess.PIPE)
        said = process.communicate(timeout=60)[1].decode()
    assert said == "fedaq: standard output cannot be written: No space left on device\n"
    assert process.returncode == 1


def test_a_reader_that_has_seen_enough_is_no_failure(start: Start) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("settings", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 128 + signal.SIGPIPE


# ---- Closed descriptors --------------------------------------------------------


@pytest.mark.parametrize(
    "closed",
    [(0, 1, 2), *(pytest.param((one,), marks=pytest.mark.slow) for one in range(3))],
    ids=str,
)
def test_a_run_without_standard_descriptors(
    closed: tuple[int, ...], start: Start, tmp_path: Path
) -> None:
    """No file of the run may get one of these numbers: what is said would be written into it."""
    shut = " ".join(f"{number}>&-" for number in closed)
    run = start("run", *SHORT, "--out", "new", under=["sh", "-c", f'exec "$@" {shut}', "sh"])
    assert run.wait(90) == 0
    assert is_whole(tmp_path / "new", 3)


def test_a_mistake_without_standard_error(start: Start) -> None:
    command = start("run", "--rounds", "ten", under=["sh", "-c", 'exec "$@" 1>&- 2>&-', "sh"])
    assert command.wait(60) == 2


# ---- A terminal that goes ------------------------------------------------------


def on_a_terminal(start: Start, *arguments: object, under: tuple[str, ...] = ()) -> Any:
    """Start a command with a terminal of its own; return both."""
    ours, its = pty.openpty()
    process = start(
        *arguments, under=list(under), stdin=its, stdout=its, stderr=its,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(its)
    return process, ours


def test_a_run_ends_with_its_terminal(start: Start, tmp_path: Path) -> None:
    run, terminal = on_a_terminal(start, "run", *LONG, "--out", "new")
    wait_until((tmp_path / "new" / "run.json").exists)
    os.close(terminal)
    assert run.wait(SECONDS) == 128 + signal.SIGHUP
    wait_until(lambda: group_of(run) == [], SECONDS)


def test_a_run_that_ignores_the_end_of_its_terminal_goes_on(start: Start, tmp_path: Path) -> None:
    run, terminal = on_a_terminal(
        start, "run", "--clients", 1, "--rounds", 20, "--out", "new",
        under=("sh", "-c", 'trap "" HUP; exec "$@"', "sh"),
    )  # fmt: skip
    wait_until((tmp_path / "new" / "run.json").exists)
    os.close(terminal)
    for pid in group_of(run):
        os.kill(pid, signal.SIGHUP)
    assert run.wait(90) == 0
    assert is_whole(tmp_path / "new", 20)


# ---- No orphans ----------------------------------------------------------------


@pytest.mark.parametrize("engine", ["run", pytest.param("compare", marks=pytest.mark.slow)])
def test_what_was_started_ends_with_a_command_that_is_killed(
    engine: str, start: Start, tmp_path: Path
) -> None:
    options: tuple[object, ...] = ("run", *LONG, "--out", "new")
    place = tmp_path / "new"
    if engine == "compare":
        options = ("compare", "--scheme", "fp32", "--engine", "processes", *LONG, "--out", "new")
        place = tmp_path / "new" / "fp32" / "seed-1"
    command = start(*options, stdout=subprocess.DEVNULL)
    wait_until((place / "run.json").exists)
    assert len(group_of(command)) == (4 if engine == "run" else 5)
    command.kill()
    command.wait()
    wait_until(lambda: group_of(command) == [], 2 * SECONDS)


# ---- The streams themselves ----------------------------------------------------


def test_lines_come_again_when_there_is_room_again(tmp_path: Path) -> None:
    """What failed is not kept for later, and does not keep later lines away."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w", buffering=1) as inner:
        stream = outputs.dropping(inner)
        for number in range(3000):
            stream.write(f"{number} {'x' * 100}\n")
        first = os.read(reading, 1 << 20)
        stream.write("after\n")
        assert first.startswith(b"0 ")
        assert os.read(reading, 1 << 20).endswith(b"after\n")
    os.close(reading)
