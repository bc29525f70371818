"""Ray's process on this machine, without which nothing of a run goes on.

When it dies, Ray waits for it, or ends this process from within, at its next call of it: then
nobody here can say why. So a small process beside this one does, if that goes without a word.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from fedaq.errors import FedaqError

# Reads until the one that it stands beside says goodbye, or is gone.
_WITNESS = """
import sys
said = sys.stdin.buffer.read()
try:
    with open(f"/proc/{sys.argv[1]}/stat") as file:
        runs = file.read().rpartition(")")[2].split()[0] != "Z"
except OSError:
    runs = False
if not said and not runs:
    print(sys.argv[2], file=sys.stderr)
"""


@dataclass(frozen=True)
class Raylet:
    """Ray's process on this machine; None where it is not seen."""

    process: psutil.Process | None

    @property
    def _end(self) -> str:
        assert self.process is not None
        return (
            f"Ray's process on this machine (raylet, {self.process.pid}) has died: was it killed, "
            "or memory short? Nothing of this run can go on; begin it again"
        )

    def check(self) -> None:
        """Find out whether it still runs.

        Raises
        ------
        FedaqError
            If it has died.
        """
        if self.process is not None and not _runs(self.process):
            raise FedaqError(self._end)

    @contextmanager
    def witnessed(self) -> Iterator[None]:
        """Have its death told of also where it takes this process with it, within the block."""
        if self.process is None or not sys.platform.startswith("linux"):
            yield
            return
        command = [sys.executable, "-I", "-S", "-c", _WITNESS, str(self.process.pid)]
        # In a session of its own: an interrupt from the keyboard is not for it.
        with subprocess.Popen(
            [*command, f"fedaq: {self._end}"], stdin=subprocess.PIPE, start_new_session=True
        ) as witness:
            try:
                yield
            finally:
                with suppress(OSError):
                    witness.communicate(b"goodbye")


def raylet_of(node: str, nodes: Iterable[Mapping[str, Any]]) -> Raylet:
    """Return the process of a node, given what Ray says of all of them."""
    sockets = [each["RayletSocketName"] for each in nodes if each["NodeID"] == node]
    for process in psutil.process_iter(["name", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.info["name"] == "raylet" and any(socket in words for socket in sockets):
            return Raylet(process)
    return Raylet(None)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
