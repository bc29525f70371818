"""Whether heartbeats are heard in time while a large model is aggregated.

    python benchmarks/heartbeats.py --out heartbeats.json

A server in this process, a few `fedaq client` that carry out one round, and 200 clients in
one more process that have joined in the middle of it and send heartbeats. From the moment
when all are there until the run is over, saved and said goodbye, the server's event loop is
asked every few milliseconds: how much later than due is it awake, and how long has it heard
nothing of a client beyond the interval of heartbeats? A client is dropped after three missed
ones.
"""

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter

from rich.console import Console
from rich.table import Table
from round import HERE, Process

from fedaq.settings import load_settings
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.serve import serve

TASK = "idle_task:m50_later"
CLIENTS = 3
LIGHT = 200
INTERVAL_S = 1.0
SAMPLE_S = 0.005
CASES = (("fixed", 4), ("fp32", 32), ("fedaq", None))


@dataclass
class Watch:
    """The longest delays, in seconds: of the event loop, and of a heartbeat."""

    loop_s: float = 0.0
    heartbeat_s: float = 0.0
    heard: int = 0
    delays: list[float] = field(default_factory=list)

    async def run(self, run: Run) -> None:
        """Watch a server until cancelled, from the moment when all clients are there."""
        await _joined(run, CLIENTS + LIGHT)
        self.heard = len(run.roster.everyone())
        seen = monotonic()
        while True:
            due = perf_counter() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            delay = perf_counter() - due
            self.delays.append(delay)
            self.loop_s = max(self.loop_s, delay)
            if monotonic() - seen > 0.1:
                seen = monotonic()
                oldest = min(
                    (c.last_seen for c in run.roster.everyone() if c.name.startswith("light")),
                    default=seen,
                )
                self.heartbeat_s = max(self.heartbeat_s, seen - oldest - INTERVAL_S)


@dataclass(frozen=True)
class Result:
    """What was measured in one run.

    Attributes
    ----------
    connected, left_out : int
        Clients that were there, and those of the round that did not finish it.
    loop_s, loop_99_s : float
        Longest delay of the server's event loop, and that which 99 of 100 stay below.
    heartbeat_s : float
        Longest time by which the server heard of a client later than due.
    sender_s : float
        Part of it that lies with the sender: longest delay with which one was sent.
    seconds : float
        Of the round.
    """

    scheme: str
    bits: int | None
    connected: int
    left_out: int
    loop_s: float
    loop_99_s: float
    heartbeat_s: float
    sender_s: float
    seconds: float


def run_case(scheme: str, bits: int | None, folder: Path) -> Result:
    records: list[RoundRecord] = []
    flags = {
        "task": TASK, "scheme": scheme, "clients": CLIENTS, "rounds": 1, "network.port": 0,
        "network.heartbeat_interval_s": INTERVAL_S,
    }  # fmt: skip
    if bits is not None and bits < 32:
        flags |= {"fixed.uplink_bits": bits, "fixed.downlink_bits": bits}
    run = Run(load_settings(environment={}, flags=flags), Ledger(folder), records.append)
    watch = Watch()
    processes: list[Process] = []

    def start(port: int) -> None:
        for number in range(CLIENTS):
            arguments = ["-m", "fedaq", "client", "--server", f"127.0.0.1:{port}",
                         "--task", TASK, "--name", f"client-{number}"]  # fmt: skip
            processes.append(Process(arguments, folder / f"client-{number}.log"))

    try:
        asyncio.run(_watched(run, watch, start, processes, folder))
        sender_s = float((folder / "light.log").read_text().split()[-1])
    finally:
        for process in processes:
            process.end()
    return Result(
        scheme=scheme,
        bits=bits,
        connected=watch.heard,
        left_out=records[0].left_out,
        loop_s=watch.loop_s,
        loop_99_s=sorted(watch.delays)[len(watch.delays) * 99 // 100],
        heartbeat_s=watch.heartbeat_s,
        sender_s=sender_s,
        seconds=records[0].seconds,
    )


async def _watched(
    run: Run, watch: Watch, start: Callable[[int], None], processes: list[Process], folder: Path
) -> None:
    address: list[int] = []

    def on_listening(port: int) -> None:
        address.append(port)
        start(port)

    async def join_later() -> None:
        # Who is there when the round begins takes part in it.
        await _joined(run, CLIENTS)
        arguments = ["light_clients.py", f"127.0.0.1:{address[0]}", TASK,
                     str(LIGHT), str(INTERVAL_S)]  # fmt: skip
        processes.append(Process(arguments, folder / "light.log"))

    helpers = [asyncio.create_task(work) for work in (join_later(), watch.run(run))]
    await serve(run, on_listening)
    for helper in helpers:
        helper.cancel()
    await asyncio.to_thread(processes[-1].peak_mb)


async def _joined(run: Run, count: int) -> None:
    while len(run.roster.everyone()) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def show(console: Console, results: list[Result]) -> None:
    table = Table("scheme", "connected", "round s", "loop ms, most", "99 %", "heartbeat ms late",
                  "of it, sender's", title=f"{LIGHT} clients beside {CLIENTS} with 50 M parameters",
                  title_justify="left")  # fmt: skip
    for r in results:
        times = (r.loop_s, r.loop_99_s, r.heartbeat_s, r.sender_s)
        name = r.scheme if r.bits is None else f"{r.scheme}, {r.bits} bits"
        table.add_row(name, str(r.connected), f"{r.seconds:.1f}",
                      *(f"{1000 * time:.0f}" for time in times))  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    os.chdir(HERE)
    results = []
    for scheme, bits in CASES:
        with TemporaryDirectory() as name:
            results.append(run_case(scheme, bits, Path(name)))
        print(results[-1], flush=True)
    show(Console(), results)
    if options.out is not None:
        document = {"machine": platform.platform(), "results": [asdict(r) for r in results]}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
