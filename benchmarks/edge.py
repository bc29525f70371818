"""What a client needs on a small board: memory and seconds a round, for every built-in task.

    python benchmarks/edge.py --fashion-mnist FOLDER

As root, for a cgroup of the limit is made; what does not fit in it is killed, and the last line
shows that it is. The client has one core, the server another. The seconds are those that its
core worked for it, in rounds after the first. Prints a table, and JSON with --json.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import sleep

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

FEDAQ = (sys.executable, "-P", "-m", "fedaq")
LIMIT_MB = 512
# Less than any task needs.
TOO_LITTLE_MB = 100
CGROUPS = Path("/sys/fs/cgroup")
PICTURES, CLASSES = 400, 4


@dataclass(frozen=True)
class Figures:
    """What one client needed."""

    task: str
    examples: int
    limit_mb: int
    peak_mb: float
    cpu_s_per_round: float
    killed: bool


@contextmanager
def cgroup(limit_mb: int) -> Iterator[Path]:
    """Yield a control group whose processes together get so much memory, and no swap."""
    first = CGROUPS / "memory"
    folder = (first if first.is_dir() else CGROUPS) / f"fedaq-edge-{os.getpid()}"
    limit, swap = ("memory.limit_in_bytes", "memory.swappiness")
    if not first.is_dir():
        limit, swap = ("memory.max", "memory.swap.max")
    try:
        folder.mkdir()
        (folder / limit).write_text(str(limit_mb * 2**20))
        with suppress(OSError):
            (folder / swap).write_text("0")
    except OSError as error:
        raise SystemExit(f"no limit of memory: {folder}: {error.strerror}; as root?") from None
    try:
        yield folder
    finally:
        sleep(0.2)
        folder.rmdir()


def draw_pictures(folder: Path) -> None:
    """Make pictures of four colours, in noise."""
    rng = np.random.default_rng(1)
    for number in range(PICTURES):
        shade = number % CLASSES
        pixels = rng.integers(0, 128, (64, 64, 3), np.uint8)
        pixels[:, :, shade % 3] += 64 + 16 * np.uint8(shade)
        place = folder / f"shade-{shade}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:04}.png")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(task: str, data: Path | None, part: str, rounds: int, limit_mb: int) -> Figures:
    """Run a server and one client, and watch the client."""
    what = ["--task", task, *(["--data", str(data)] if data else [])]
    port, cores = free_port(), sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, cgroup(limit_mb) as group:
        server = subprocess.Popen(
            ["taskset", "-c", str(cores[-1]), *FEDAQ, "server", *what, "--clients", "1",
             "--rounds", str(rounds), "--port", str(port), "--out", f"{folder}/run", "--quiet",
             "--set", "network.return_wait_s=0"],
        )  # fmt: skip
        client = subprocess.Popen(
            ["sh", "-c", f"echo $$ > {group}/cgroup.procs && exec taskset -c {cores[0]} \"$@\"",
             "sh", *FEDAQ, "client", *what, "--server", f"127.0.0.1:{port}", "--partition", part,
             "--json-logs"], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            return watch(client, task, limit_mb)
        finally:
            for process in (client, server):
                process.kill()
                process.wait()


def watch(client: "subprocess.Popen[str]", task: str, limit_mb: int) -> Figures:
    """Read what the client says, and look at it after every round."""
    examples, peak_mb = 0, 0.0
    rounds: list[float] = []
    assert client.stderr is not None
    for line in client.stderr:
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "started":
            examples = event["examples"]
        if event.get("event") == "round done":
            rounds.append(cpu_s(client.pid))
            peak_mb = max(peak_mb, resident_peak_mb(client.pid))
    code = client.wait()
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"{task}: the client ended with code {code}")
    each_s = (rounds[-1] - rounds[0]) / (len(rounds) - 1) if len(rounds) > 1 else float("nan")
    return Figures(task, examples, limit_mb, peak_mb, each_s, code == -signal.SIGKILL)


def cpu_s(pid: int) -> float:
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def resident_peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    _, _, peak = status.partition("VmHWM:")
    return int(peak.split()[0]) * 1024 / 1e6 if peak else 0.0  # it has just ended


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER", help="its IDX files")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options, say = parser.parse_args(), Console()
    with tempfile.TemporaryDirectory() as name:
        pictures = Path(name) / "pictures"
        draw_pictures(pictures)
        tasks: list[tuple[str, Path | None, str]] = [("digits", None, "1/5")]
        if options.fashion_mnist:
            tasks += [(task, options.fashion_mnist, "1/10")
                      for task in ("fashion-mnist", "fashion-mnist-cnn")]  # fmt: skip
        tasks.append(("images", pictures, "1/1"))
        found = [measure(*task, options.rounds, LIMIT_MB) for task in tasks]
    found.append(measure("digits", None, "1/5", options.rounds, TOO_LITTLE_MB))
    if options.json:
        print(json.dumps({"clients": [*map(asdict, found)]}))
    else:
        say.print(table(found))
    fits = not any(one.killed for one in found[:-1]) and found[-1].killed
    sys.exit(0 if fits else 1)


def table(found: list[Figures]) -> Table:
    drawn = Table("task", "examples", "limit, MB", "peak, MB", "seconds a round", "")
    for one in found:
        drawn.add_row(
            one.task, str(one.examples), str(one.limit_mb), f"{one.peak_mb:.0f}",
            f"{one.cpu_s_per_round:.2f}", "killed" if one.killed else "",
        )  # fmt: skip
    return drawn


if __name__ == "__main__":
    main()
