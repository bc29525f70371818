"""What people who watch the page cost: seconds of a round, bytes of an update, bytes of the page.

    python benchmarks/viewers.py --out viewers.json
    python benchmarks/viewers.py --quick

One run per task: a server in this process with its page, five `fedaq client`, and in a process
of their own the viewers, who come and go every few rounds. The ratio is that of the rounds with
viewers to those without, between neighbouring blocks. Bytes are those that came
through a viewer's socket, HTTP and all: in updates per round, and for the page before that.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from round import HERE, Process, free_port

from fedaq.settings import load_settings
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.serve import serve

CLIENTS = 5
VIEWERS = 50
# Rounds without training, with as little as there can be, and so long that every state is seen.
# How many make a block: the page is told of what is new twice a second.
TASKS = {"idle_task:m1": 60, "digits": 60, "idle_task:m1_second": 4}
BLOCKS = 12
# In this share of a block, its first rounds, viewers are still coming or going.
EDGE = 1 / 4


@dataclass(frozen=True)
class Result:
    """What was measured in one run.

    Attributes
    ----------
    alone_s, watched_s : float
        Median seconds of a round.
    ratio : float
        Median, over blocks, of the median with viewers to that of the neighbours without.
    lowest, highest : float
        The least and the greatest of them.
    update_bytes : float
        Per round and viewer.
    page_bytes, snapshot_bytes : int
        The page with its files, and the first message of the run, in the middle of it.
    """

    task: str
    viewers: int
    alone_s: float
    watched_s: float
    ratio: float
    lowest: float
    highest: float
    update_bytes: float
    page_bytes: int
    snapshot_bytes: int


# ---- The viewers, in a process of their own ---------------------------------


@dataclass
class Seen:
    """What the viewers received."""

    snapshots: list[int] = field(default_factory=list)
    update_bytes: int = 0
    rounds: int = 0


async def view(port: int, seen: Seen) -> None:
    """Watch until cancelled, as a browser does: compressed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n")
        size = len(await reader.readuntil(b"\r\n\r\n"))
        plain, text, first = zlib.decompressobj(31), b"", True
        while length := await reader.readline():
            chunk = await reader.readexactly(int(length, 16) + 2)
            size += len(length) + len(chunk)
            *lines, text = (text + plain.decompress(chunk[:-2])).split(b"\n")
            for message in (json.loads(line[6:]) for line in lines if line.startswith(b"data: ")):
                if first:
                    seen.snapshots.append(size)
                else:
                    seen.update_bytes += size
                    seen.rounds += len(message.get("points", ()))
                size, first = 0, False
    finally:
        writer.close()


async def watch(port: int) -> None:
    """Obey standard input: a line is the number of viewers there are to be from now on."""
    seen, viewers = Seen(), list[asyncio.Task[None]]()
    while line := await asyncio.to_thread(sys.stdin.readline):
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)
        viewers = [asyncio.create_task(view(port, seen)) for _ in range(int(line))]
    for viewer in viewers:
        viewer.cancel()
    print(json.dumps(asdict(seen)))


# ---- The run ----------------------------------------------------------------


async def page_bytes(port: int) -> int:
    """Ask for the page and all it needs as a browser does; return the bytes that came."""
    total, wanted, known = 0, ["/"], set[str]()
    while wanted:
        path = wanted.pop()
        known.add(path)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        total += len(await reader.read())
        writer.close()
        wanted += {*await links(port, path)} - known - {*wanted}
    return total


async def links(port: int, path: str) -> list[str]:
    """Return what a file of the page refers to."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    answer = (await reader.read()).decode(errors="replace")
    writer.close()
    assert " 200 " in answer.partition("\r\n")[0], path
    folder = path.rpartition("/")[0]
    absolute = re.findall(r'(?:href|src)="(/static/[^"]+)"', answer)
    relative = re.findall(r'from ?"\./([^"]+)"|url\(([\w.]+)\)', answer)
    return [*absolute, *(f"{folder}/{script or image}" for script, image in relative)]


def run_case(task: str, rounds: int, viewers: int, folder: Path) -> Result:
    """Run one federation, watched in every other block of rounds."""
    page_port = free_port()
    settings = load_settings(
        environment={},
        flags={
            "task": task, "clients": CLIENTS, "rounds": rounds * (BLOCKS + 1) + 1,
            "network.port": 0, "network.dashboard_port": page_port,
        },
    )  # fmt: skip
    watching = subprocess.Popen(
        [sys.executable, str(HERE / "viewers.py"), "--watch", str(page_port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watching.stdin is not None

    def on_round(record: RoundRecord) -> None:
        block, place = divmod(record.round, rounds)
        if place == 0:
            assert watching.stdin is not None
            print(viewers if block % 2 else 0, file=watching.stdin, flush=True)

    run = Run(settings, Ledger(folder), on_round)
    processes: list[Process] = []

    def start(port: int) -> None:
        for number in range(CLIENTS):
            arguments = ["-m", "fedaq", "client", "--server", f"127.0.0.1:{port}", "--task", task,
                         "--name", f"client-{number}",
                         "--partition", f"{number + 1}/{CLIENTS}"]  # fmt: skip
            processes.append(Process(arguments, folder / f"client-{number}.log"))

    loaded = asyncio.run(_served(run, start, page_port))
    try:
        said, _ = watching.communicate(timeout=60)
    finally:
        for process in processes:
            process.end()
        watching.kill()
    return _result(task, viewers, run.records, rounds, json.loads(said), loaded)


async def _served(run: Run, start: Callable[[int], None], page_port: int) -> int:
    serving = asyncio.create_task(serve(run, start))
    while not run.records:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    loaded = await page_bytes(page_port)
    await serving
    return loaded


def _result(
    task: str,
    viewers: int,
    records: list[RoundRecord],
    rounds: int,
    seen: dict[str, int | list[int]],
    loaded: int,
) -> Result:
    # The block before the first viewers is warm-up.
    blocks = [
        [each.seconds for each in records[rounds * at + int(EDGE * rounds) : rounds * (at + 1)]]
        for at in range(1, BLOCKS + 1)
    ]
    medians = [median(block) for block in blocks]
    ratios = [a / b if place % 2 == 0 else b / a for place, (a, b) in enumerate(pairwise(medians))]
    assert isinstance(seen["snapshots"], list)
    assert isinstance(seen["update_bytes"], int) and isinstance(seen["rounds"], int)
    return Result(
        task=task,
        viewers=viewers,
        alone_s=median(second for block in blocks[1::2] for second in block),
        watched_s=median(second for block in blocks[::2] for second in block),
        ratio=median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        update_bytes=seen["update_bytes"] / seen["rounds"],
        page_bytes=loaded,
        snapshot_bytes=max(seen["snapshots"]),
    )


def show(console: Console, results: list[Result]) -> None:
    table = Table(title=f"{CLIENTS} clients, every other block watched", title_justify="left")
    for name in ("task", "viewers", "s/round alone", "watched", "ratio", "of blocks",
                 "B/round and viewer", "kB page", "kB first message"):  # fmt: skip
        table.add_column(name, justify="right")
    for r in results:
        table.add_row(
            r.task, str(r.viewers), f"{r.alone_s:.4f}", f"{r.watched_s:.4f}", f"{r.ratio:.3f}",
            f"{r.lowest:.2f} to {r.highest:.2f}", f"{r.update_bytes:.0f}",
            f"{r.page_bytes / 1e3:.1f}", f"{r.snapshot_bytes / 1e3:.1f}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--watch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--viewers", type=int, default=VIEWERS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--quick", action="store_true", help="digits only")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    if options.watch is not None:
        asyncio.run(watch(options.watch))
        return
    console = Console(width=120)
    results = []
    for task in ["digits"] if options.quick else options.tasks:
        with TemporaryDirectory() as name:
            results.append(run_case(task, TASKS[task], options.viewers, Path(name)))
    show(console, results)
    if options.out is not None:
        document = {
            "machine": platform.platform(),
            "processors": os.cpu_count(),
            "results": [asdict(result) for result in results],
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
