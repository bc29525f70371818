"""A federation as processes: the same `fedaq server` and `fedaq client` as by hand."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedaq.cli.completion import TASKS
from fedaq.errors import FedaqError, UserError
from fedaq.net.ports import bound
from fedaq.process.stopping import FOLLOWS_PARENT, postponed
from fedaq.settings import flag_of, load_settings
from fedaq_server.records.run_folder import results_folder

_HOST = "127.0.0.1"
_POLL_S = 0.05
_LEAVE_S = 20.0
# Less than a process gives itself (STOP_GRACE_S): this one must outlive the others.
_STOP_S = 3.0


@dataclass(frozen=True)
class _Child:
    """One process and the file that holds what it said."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def failed(self) -> bool:
        """Tell whether it ended otherwise than well."""
        return self.process.poll() not in (None, 0)

    def failure(self) -> FedaqError:
        """Return the error it died of: what it said last, of the kind its exit code names."""
        text = self.log.read_text(errors="replace").strip()
        if os.environ.get("FEDAQ_TRACEBACK"):
            print(text, file=sys.stderr)
        code = self.process.returncode
        last = text.rpartition("\n")[2].removeprefix("fedaq: ")
        with suppress(ValueError, KeyError, TypeError):  # not JSON
            last = json.loads(last)["message"]
        kind = UserError if code == 2 else FedaqError
        return kind(last or f"{self.log.stem} ended with code {code}")


@dataclass(frozen=True)
class _Children:
    """The server and the clients, none of which outlives this process."""

    all: list[_Child] = field(default_factory=list)

    def start(self, command: list[str], log: Path, *, terminal: bool = False) -> None:
        """Start a process; with `terminal`, its log holds its standard error only."""
        # A process that a signal keeps off the list would outlive this one.
        with log.open("wb") as file, postponed():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=None if terminal else file,
                stderr=file,
                # Else what it printed before an error would come behind it in the log.
                env={**os.environ, FOLLOWS_PARENT: "1", "PYTHONUNBUFFERED": "1"},
            )
            self.all.append(_Child(process, log))

    def end(self) -> None:
        """End every process that still runs."""
        running = [child.process for child in self.all if child.process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _STOP_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run_processes(
    *,
    config: Path | None,
    out: Path | None,
    port: int | None,
    flags: Mapping[str, Any],
    assignments: list[str],
    quiet: bool,
    look: Callable[[Path], object] | None = None,
) -> Path:
    """Run one server and as many clients as the settings say, until the server is done.

    Parameters
    ----------
    look : callable, optional
        Called again and again with the server's log, which is JSON then, and nothing is written
        to the terminal. What it raises ends the run.

    Returns
    -------
    Path
        The folder of the run.

    Raises
    ------
    UserError
        If a setting is wrong.
    FedaqError
        If the server fails, or a client before the first round is done.
    """
    settings = load_settings(
        config=config, flags={**flags, "network.port": port}, assignments=assignments
    )
    if settings.task not in TASKS or settings.data is not None:
        # A mistake is told before anything starts. For a task of ours alone, torch is not loaded.
        from fedaq.tasks import load_task

        load_task(settings.task, settings.data)
    port = _claim_port(port or 0)
    server = [*_fedaq("server", flags, config, assignments),
              "--set", f"network.host={_HOST}", "--set", f"network.port={port}",
              *(["--json-logs"] if look else ["--quiet"] if quiet else [])]  # fmt: skip
    shared = ("task", "data", "seed", "device", "threads", "start_from")
    client_flags = {name: flags.get(name) for name in shared}
    client = [*_fedaq("client", client_flags, config, assignments), "--server", f"{_HOST}:{port}"]
    with results_folder(out, settings) as folder, _processes(folder) as (children, logs):
        log = logs / "server.log"
        children.start([*server, "--out", str(folder)], log, terminal=look is None)
        for number in range(1, settings.clients + 1):
            part = ["--partition", f"{number}/{settings.clients}"]
            children.start([*client, *part], logs / f"client-{number}.log")
        _wait(children.all[0], children.all[1:], folder, look or (lambda log: None))
        return folder


def _wait(
    server: _Child,
    clients: Sequence[_Child],
    folder: Path,
    look: Callable[[Path], object] = lambda log: None,
) -> None:
    while server.process.poll() is None:
        look(server.log)
        failed = [client for client in clients if client.failed()]
        # Later on, the rounds go on without a client that failed.
        if len(failed) == len(clients) or (failed and not _has_begun(folder)):
            raise failed[0].failure()
        time.sleep(_POLL_S)
    if server.failed():
        raise server.failure()
    look(server.log)
    for client in clients:
        with suppress(subprocess.TimeoutExpired):
            client.process.wait(_LEAVE_S)


@contextmanager
def _processes(folder: Path) -> Iterator[tuple[_Children, Path]]:
    """Give room to processes and their logs; a mistake of the user's leaves neither."""
    children, logs = _Children(), folder / "logs"
    logs.mkdir(exist_ok=True)
    try:
        try:
            yield children, logs
        finally:
            children.end()
    except UserError:
        if not _has_begun(folder):
            shutil.rmtree(logs)
        raise


def _has_begun(folder: Path) -> bool:
    return (folder / "run.json").exists()


def _fedaq(
    command: str, flags: Mapping[str, Any], config: Path | None, assignments: Sequence[str]
) -> list[str]:
    # Without -P a folder of that name in the working directory would be imported.
    line = [sys.executable, "-P", "-m", "fedaq", command]
    for name, value in {**flags, "config": config}.items():
        if value is not None:
            line += [flag_of(name), str(value)]
    for assignment in assignments:
        line += ["--set", assignment]
    return line


def _claim_port(port: int) -> int:
    """Return the port if it is free, or any free one for port 0.

    Raises
    ------
    UserError
        If it is busy.
    """
    try:
        with bound(_HOST, port) as listener:
            claimed: int = listener.getsockname()[1]
            return claimed
    except OSError as error:
        raise UserError(
            f"cannot listen on {_HOST}:{port}: {error.strerror}; choose another --port"
        ) from None
