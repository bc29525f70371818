"""Commands that begin in a copy of a process which has loaded the large libraries already.

Torch alone takes more than a second of every process, and the tests start hundreds. All of FedAQ's
own code, and gRPC, is imported by the copy and run as ``python -P -m fedaq`` runs it, to the end of
the interpreter. What differs from a new process: all copies hash strings alike, and share memory.

As a program, this file is the process that is copied. It reads requests from a Unix socket on its
standard input: a JSON array of the working directory and the arguments, with three files for the
standard output, the standard error, and what becomes of the copy: ``pid`` and, later, ``status``,
a line each.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from runpy import run_module
from typing import BinaryIO, Protocol

# What libgomp reads when it is loaded; `fedaq.cli.app.main` would set it.
SPINNING = ("GOMP_SPINCOUNT", "20000")
# None of FedAQ's, and none that starts threads or reads settings when it is imported, as gRPC does.
LIBRARIES = (
    "torch", "matplotlib.figure", "psutil", "pydantic.main", "pydantic.types", "rich.progress",
    "rich.table", "typer",
)  # fmt: skip
MOST_BYTES = 64 * 1024
_LINUX = sys.platform == "linux"


class Process(Protocol):
    """What the tests do with a process, be it a copy or a `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@dataclass
class Copy:
    """A copy at work; its parent is the process that was copied, which tells how it ended."""

    pid: int
    told: BinaryIO
    args: list[str]
    returncode: int | None = field(default=None)

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code, of a signal -1 times its number."""
        code = self._ended(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self.told], [], [], timeout_s)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self.told.readline()))
            self.told.close()
        return self.returncode


class Original:
    """The process that is copied, with the environment that this one has now.

    It ends when this one does, which closes the socket.
    """

    def __init__(self) -> None:
        self._environment = environment()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            subprocess.run(
                [sys.executable, "-P", __file__], check=True,
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True,
                env={SPINNING[0]: SPINNING[1], **self._environment},
            )  # fmt: skip

    def serves(self) -> bool:
        """Tell whether a copy would have the environment that a new process has."""
        return environment() == self._environment

    def start(self, arguments: list[str], folder: Path, out: BinaryIO, err: BinaryIO) -> Copy:
        """Start ``fedaq`` with these arguments in a folder."""
        reads, writes = os.pipe()
        told = os.fdopen(reads, "rb", buffering=0)
        try:
            request = json.dumps([str(folder), *arguments]).encode()
            assert len(request) < MOST_BYTES
            socket.send_fds(self._requests, [request], [out.fileno(), err.fileno(), writes])
        finally:
            os.close(writes)
        return Copy(int(told.readline()), told, ["fedaq", *arguments])


@cache
def original() -> Original | None:
    """Return the one process of this one, or nothing where the system can't tell of its end."""
    return Original() if _LINUX else None


def environment() -> dict[str, str]:
    """Return what a command finds in its environment."""
    clean = {name: value for name, value in os.environ.items() if "FEDAQ" not in name}
    clean.pop("PYTEST_CURRENT_TEST", None)
    return clean


# ---- The process that is copied ----------------------------------------------


def copies() -> list[str] | None:
    """Serve requests to their end; a copy returns from here at once, with its arguments."""
    requests = socket.socket(fileno=os.dup(0))
    waited: dict[int, tuple[int, int]] = {}  # by the file that tells of the end
    while True:
        ready = select.select([requests.fileno(), *waited], [], [])[0]
        for ended in [file for file in ready if file in waited]:
            pid, told = waited.pop(ended)
            os.write(told, b"%d\n" % os.waitpid(pid, 0)[1])
            os.close(ended)
            os.close(told)
        if requests.fileno() not in ready:
            continue
        request, files, _, _ = socket.recv_fds(requests, MOST_BYTES, 3)
        if not request:
            return None
        pid = os.fork()
        if not pid:
            requests.close()
            return _become(json.loads(request), files)
        out, err, told = files
        os.close(out)
        os.close(err)
        waited[os.pidfd_open(pid)] = pid, told


def _become(request: list[str], files: list[int]) -> list[str]:
    """Take the place of a new process; return the arguments."""
    folder, *arguments = request
    out, err, told = files
    os.setsid()
    os.chdir(folder)
    for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), out, err]):
        os.dup2(file, number)
    os.write(told, b"%d\n" % os.getpid())
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    return arguments


def main() -> None:
    """Load the libraries, serve, and in a copy run the command."""
    if os.fork():  # no child of who started this: tests count theirs
        os._exit(0)
    for library in LIBRARIES:
        import_module(library)
    gc.collect()
    gc.freeze()  # else a copy's collector would write to every page, and copy it
    arguments = copies()
    if arguments is not None:
        sys.argv[1:] = arguments
        run_module("fedaq", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
