"""The `fedaq` command as a user runs it, in processes that never outlive a test."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from system import warm

PATIENCE_S = 180.0


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Running:
    """A command at work; its process group is its own, and its words go to files."""

    process: warm.Process
    out: Path
    err: Path

    def wait(self, timeout_s: float = PATIENCE_S) -> Ended:
        """Wait for its end."""
        code = self.process.wait(timeout_s)
        out, err = (file.read_text(errors="backslashreplace") for file in (self.out, self.err))
        return Ended(code, out, err)

    def wait_for(self, text: str, *, on_error: bool = False) -> None:
        """Wait until it says this on standard output, or on standard error."""
        end, said = time.monotonic() + PATIENCE_S, self.err if on_error else self.out
        while text not in said.read_text():
            assert self.process.poll() is None, f"it ended: {self.err.read_text()}"
            assert time.monotonic() < end, f"it never said {text!r}: {said.read_text()}"
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(number)

    def group(self) -> list[int]:
        """Return the processes of its group that are still there, zombies aside."""
        found = []
        for process in psutil.process_iter(["status"]):
            with suppress(ProcessLookupError):
                mine = os.getpgid(process.pid) == self.process.pid
                if mine and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found


@dataclass
class Commands:
    """Starts commands in a folder."""

    folder: Path
    _running: list[Running] = field(default_factory=list)

    def start(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        limits: str = "",
        new: bool = False,
    ) -> Running:
        """Start ``fedaq`` with these arguments, in a copy of a process that has loaded torch.

        It is a new process where it begins otherwise: with variables in `env`, or after `limits`,
        a line of shell; and where `new` says that its beginning or its command line counts.
        """
        number = len(self._running)
        out, err = (self.folder / f"{number}.{name}" for name in ("out", "err"))
        words = list(map(str, arguments))
        original = None if env or limits or new else warm.original()
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process: warm.Process
            if original is not None and original.serves():
                process = original.start(words, self.folder, out_file, err_file)
            else:
                line = [sys.executable, "-P", "-m", "fedaq", *words]
                process = subprocess.Popen(
                    ["sh", "-c", f'{limits} && exec "$@"', "sh", *line] if limits else line,
                    cwd=self.folder,
                    env={**warm.environment(), **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=out_file,
                    stderr=err_file,
                    start_new_session=True,
                )
        running = Running(process, out, err)
        self._running.append(running)
        return running

    def run(
        self, *arguments: object, env: Mapping[str, str] | None = None, limits: str = ""
    ) -> Ended:
        """Run ``fedaq`` with these arguments to its end."""
        return self.start(*arguments, env=env, limits=limits).wait()

    def kill(self) -> None:
        """Kill everything that was started, and what it started."""
        for running in self._running:
            with suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
