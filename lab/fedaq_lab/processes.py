"""A federation as processes: the same `fedaq server` and `fedaq client` as by hand."""

import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fedaq.errors import FedaqError, UserError
from fedaq.settings import load_settings
from fedaq_server.folder import results_folder

_POLL_S = 0.05
_LEAVE_S = 20.0


def run_processes(
    *,
    config: Path | None,
    out: Path | None,
    port: int | None,
    flags: Mapping[str, Any],
    assignments: list[str],
) -> None:
    """Run one server and as many clients as the settings say, until the server is done.

    Raises
    ------
    UserError
        If a setting is wrong.
    FedaqError
        If the server or all clients fail.
    """
    settings = load_settings(config=config, flags=flags, assignments=assignments)
    folder = results_folder(out, settings)
    port = port or _free_port()
    shared = _options(flags, config, assignments)
    server = [*_fedaq("server"), *shared, "--host", "127.0.0.1", "--port", str(port),
              "--out", str(folder)]  # fmt: skip
    logs = folder / "clients"
    logs.mkdir(exist_ok=True)
    client_flags = {name: flags.get(name) for name in ("task", "data", "seed")}
    client_shared = _options(client_flags, config, assignments)
    with ExitStack() as stack:
        processes = [_start(stack, server, None)]
        for number in range(1, settings.clients + 1):
            command = [*_fedaq("client"), *client_shared, "--server", f"127.0.0.1:{port}",
                       "--partition", f"{number}/{settings.clients}"]  # fmt: skip
            processes.append(_start(stack, command, logs / f"client-{number}.log"))
        _wait(processes[0], processes[1:], logs)


def _wait(server: "subprocess.Popen[bytes]", clients: Sequence["subprocess.Popen[bytes]"],
          logs: Path) -> None:  # fmt: skip
    while server.poll() is None:
        if all(client.poll() not in (None, 0) for client in clients):
            raise FedaqError(f"every client failed; their last words are in {logs}")
        time.sleep(_POLL_S)
    if server.returncode == 2:
        raise SystemExit(2)
    if server.returncode != 0:
        raise SystemExit(1)
    for client in clients:
        try:
            client.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            client.terminate()


def _start(stack: ExitStack, command: list[str], log: Path | None) -> "subprocess.Popen[bytes]":
    output = None if log is None else stack.enter_context(log.open("wb"))
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )
    stack.callback(_end, process)
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _fedaq(command: str) -> list[str]:
    return [sys.executable, "-m", "fedaq", command]


def _options(
    flags: Mapping[str, Any], config: Path | None, assignments: Sequence[str]
) -> list[str]:
    options = []
    for name, value in {**flags, "config": config}.items():
        if value is not None:
            options += [f"--{name}", str(value)]
    for assignment in assignments:
        options += ["--set", assignment]
    return options


def _free_port() -> int:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise UserError(f"no free port on 127.0.0.1: {error.strerror}") from None
