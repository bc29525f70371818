"""What adapters cost: bytes on the way, and memory above that of the libraries.

Runs a server and two clients as processes, and prints the peak of each beside the size of the
model. Memory is that of Linux.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

MB = 1e6
_CLIENTS, _ROUNDS = 2, 2
# The same libraries, and neither a model nor a run.
_IDLE = (
    "import psutil, fedaq_client.cli.client_process, fedaq_server.cli.server_process; "
    "from lora.task import adapted; adapted(16, 1).model()(__import__('torch').zeros(1, 4).long());"
    "print(psutil.Process().memory_info().rss)"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", nargs="?", default="large", choices=("task", "large"))
    name = parser.parse_args().task
    idle = int(subprocess.check_output([sys.executable, "-c", _IDLE], text=True).split()[-1])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        peaks = _peaks(f"lora.task:{name}", out)
        run = json.loads((out / "run.json").read_text())
    base, trained = _values(name)
    rows = [
        ("base, float32", f"{4 * base / MB:.1f} MB"),
        ("adapters, float32", f"{4 * trained / MB:.2f} MB"),
        ("libraries alone", f"{idle / MB:.0f} MB"),
    ]
    for side, peak in sorted(peaks.items()):
        above = (peak - idle) / MB
        rows.append((f"{side}, above them", f"{above:.0f} MB, {above * MB / 4 / base:.2f} bases"))
    rounds = run["rounds"]
    for record in rounds:
        sent = record["uplink_payload_bytes"] / _CLIENTS
        share = 100 * sent / (4 * base)
        rows.append((f"round {record['round']}, up, a client", f"{sent:,.0f} B, {share:.4f} %"))
    for what, found in rows:
        print(f"| {what} | {found} |")


def _values(name: str) -> tuple[int, int]:
    from lora import task

    model = getattr(task, name).model()
    sizes = [(value.numel(), value.requires_grad) for value in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


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
