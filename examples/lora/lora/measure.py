"""What adapters cost: bytes on the way, and memory.

Runs a server and two clients as processes, with a large model and with one of next to no weights,
and prints how much more memory each took at its peak. Memory is that of Linux.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MB = 1e6
_CLIENTS, _ROUNDS = 2, 2


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for what, found in rows(measured()):
        print(f"| {what} | {found} |")


@dataclass(frozen=True)
class Measured:
    """What the run with the large model took.

    Attributes
    ----------
    base, trained : int
        Weights that are frozen, and those of the adapters.
    above : dict of str to int
        Peak bytes of memory of each process, less those of a run with the tiny model.
    uplink : list of float
        Payload bytes of a client's update, by round.
    """

    base: int
    trained: int
    above: dict[str, int]
    uplink: list[float]


def measured(module: str = "lora.task") -> Measured:
    """Run both; `module` has the tasks."""
    with tempfile.TemporaryDirectory() as folder:
        beside = _peaks(f"{module}:tiny", Path(folder) / "tiny")
        peaks = _peaks(f"{module}:large", Path(folder) / "large")
        run = json.loads((Path(folder) / "large" / "run.json").read_text())
    above = {side: peak - beside[side] for side, peak in sorted(peaks.items())}
    sent = [record["uplink_payload_bytes"] / _CLIENTS for record in run["rounds"]]
    return Measured(*_values(), above, sent)


def rows(found: Measured) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table."""
    base = 4 * found.base
    yield "base, float32", f"{base / MB:.1f} MB"
    yield "adapters, float32", f"{4 * found.trained / MB:.2f} MB"
    for side, above in found.above.items():
        yield f"{side}, above the tiny model", f"{above / MB:.0f} MB, {above / base:.2f} bases"
    for number, sent in enumerate(found.uplink, 1):
        yield f"round {number}, up, a client", f"{sent:,.0f} B, {100 * sent / base:.4f} %"


def _values() -> tuple[int, int]:
    from lora.task import large

    sizes = [(weight.numel(), weight.requires_grad) for weight in large.model().parameters()]
    return sum(n for n, trained in sizes if not trained), sum(n for n, t in sizes if t)


def _peaks(task: str, out: Path) -> dict[str, int]:
    """Carry a run out, and return the peak memory of each process in bytes."""
    line = [sys.executable, "-m", "fedaq", "run", "--task", task, "--clients", str(_CLIENTS),
            "--rounds", str(_ROUNDS), "--quiet", "--out", str(out)]  # fmt: skip
    peaks: dict[str, int] = {}
    run = subprocess.Popen(line)
    while run.poll() is None:
        for child in psutil.Process(run.pid).children():
            try:
                words, status = child.cmdline(), Path(f"/proc/{child.pid}/status").read_text()
            except (psutil.Error, OSError):
                continue
            side = "server" if "server" in words else words[-1] if "client" in words else ""
            peak = [row.split()[1] for row in status.splitlines() if row.startswith("VmHWM")]
            if side and peak:
                name = side if side == "server" else f"client {side}"
                peaks[name] = 1024 * int(peak[0])
        time.sleep(0.1)
    if run.returncode:
        raise SystemExit(run.returncode)
    return peaks


if __name__ == "__main__":
    main()
