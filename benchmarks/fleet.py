"""One server and thousands of connected clients: seconds, memory, and what else goes on meanwhile.

    python benchmarks/fleet.py --clients 1000
    python benchmarks/fleet.py --clients 5000 --drawn 200

A real `fedaq server` with its page and /metrics; clients of `load_clients.py` in a few processes,
each with a connection of its own, which do all but train. It prints

- how long all take to connect, and until the first round begins,
- seconds and the server's processor seconds of a round (medians), beside the ideal: the bytes that
  crossed the sockets at the speed of this machine's loopback, and the codec's work at both ends
  on all cores,
- the server's memory: idle, and its peak above that,
- during rounds, how long the page, its events, /metrics and the join of one more client take,
- after a restart of the server in the midst of a round (--kill: a death without a word), how long
  until all are back, and the largest share of them that joined within one second.
"""

import argparse
import asyncio
import json
import platform
import signal
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import ProxyHandler, build_opener

import grpc
import psutil
from ideal import CodecTime, codec_time, loopback_bps, spec_of
from light_clients import join_message
from round import MB, Process, free_port

from fedaq.net.grpc_options import CLIENT_OPTIONS, DIRECT, PATH
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.transport.open_files import raise_limit

TASK = "idle_task:m01"
LOADERS = 2
# Models that are kept at a time, of all clients together.
MOST_MODELS = 1000
PROBE_S = 0.5
# Whoever looks at /metrics takes time of the server's.
LOOK_S = 0.5
# Seconds after which something has gone wrong.
PATIENCE_S = 240.0
WINDOW_S = 1.0
_open = build_opener(ProxyHandler({})).open


@dataclass
class Federation:
    """A server and where it is found."""

    folder: Path
    clients: int
    drawn: int
    settings: list[str]
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    page_port: int = field(default_factory=free_port)
    starts: int = 0

    def start(self) -> Process:
        """Start the server, or start it again on its folder; return when it listens."""
        self.starts += 1
        drawn = [] if self.drawn == self.clients else [f"clients_per_round={self.drawn}"]
        given = [word for text in (*drawn, *self.settings) for word in ("--set", text)]
        process = Process(
            ["-m", "fedaq", "server", "--task", TASK, "--clients", str(self.clients),
             "--rounds", "100000", "--resume", str(self.folder / "run"), "--json-logs",
             "--port", str(self.port), "--metrics-port", str(self.metrics_port),
             "--dashboard-port", str(self.page_port), *given],
            self.folder / f"server-{self.starts}.log",
        )  # fmt: skip
        until(lambda: "fedaq_rounds_total" in self.metrics(), "the server does not start")
        return process

    def metrics(self) -> dict[str, float]:
        """Return what /metrics says, by the name of the series; nothing without a server."""
        try:
            with _open(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def joins(self) -> list[float]:
        """Return when clients joined since the last start, in seconds since 1970."""
        log = (self.folder / f"server-{self.starts}.log").read_text().splitlines()
        lines = [json.loads(line) for line in log if '"client joined"' in line]
        return [datetime.fromisoformat(line["time"]).timestamp() for line in lines]

    def connected(self) -> float:
        return self.metrics().get("fedaq_connected_clients", 0.0)

    def rounds(self) -> float:
        return self.metrics().get("fedaq_rounds_total", 0.0)

    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.folder / "run" / "run.json").read_text())[
            "rounds"
        ]
        return found


def until(condition: Callable[[], bool], problem: str, patience_s: float = PATIENCE_S) -> float:
    """Wait until a condition holds; return the seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience_s:
            raise SystemExit(f"{problem} within {patience_s:g} s")
        time.sleep(LOOK_S)
    return time.monotonic() - began


# ---- Probes ------------------------------------------------------------------


class Probes:
    """Ask the server for what people and machines ask it for, again and again, until stopped."""

    def __init__(self, federation: Federation) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._federation = federation
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._join = join_message("one-more", spec_of(TASK))
        # No round is to count on it.
        self._join.readiness.declined = pb.DECLINE_REASON_BUSY

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()

    def _ask(self) -> None:
        page = f"http://127.0.0.1:{self._federation.page_port}"
        asked: dict[str, Callable[[], object]] = {
            "page": lambda: _open(f"{page}/", timeout=60).read(),
            "events": lambda: _first_event(f"{page}/events"),
            "metrics": self._federation.metrics,
            "join": lambda: asyncio.run(join_once(self._federation.port, self._join)),
        }
        while not self._stopped.is_set():
            for name, ask in asked.items():
                began = time.monotonic()
                ask()
                self.seconds.setdefault(name, []).append(time.monotonic() - began)
            self._stopped.wait(PROBE_S)

    def summary(self) -> dict[str, tuple[float, float, int]]:
        """Return, of each, the median and the longest seconds, and how often it was asked."""
        return {
            name: (median(seconds), max(seconds), len(seconds))
            for name, seconds in self.seconds.items()
        }


def _first_event(address: str) -> None:
    with _open(address, timeout=60) as events:
        while not events.readline().startswith(b"data:"):
            pass


async def join_once(port: int, join: pb.Join) -> None:
    """Join, wait for the welcome, and leave."""
    options = [*CLIENT_OPTIONS, DIRECT, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call: Any = channel.stream_stream(PATH)()  # type: ignore[call-arg]
        await call.write(pb.ClientMessage(join=join).SerializeToString())
        welcome = pb.ServerMessage.FromString(await call.read())
        assert welcome.HasField("welcome")
        leave = pb.ClientMessage(leave=pb.Leave(reason="it only looked"))
        await call.write(leave.SerializeToString())
        await call.done_writing()


# ---- The run -------------------------------------------------------------------


@dataclass(frozen=True)
class Storm:
    """What a restart of the server was like.

    Attributes
    ----------
    down_s : float
        Seconds without a server.
    back_s : float
        Seconds until all were back, from when it listened again.
    most_in_a_second : float
        Share of the clients.
    """

    down_s: float
    back_s: float
    most_in_a_second: float


@dataclass(frozen=True)
class Result:
    """What was measured."""

    clients: int
    drawn: int
    connect_s: float
    first_round_s: float
    rounds: int
    round_s: float
    server_cpu_s: float
    clients_cpu_s: float
    wire_bytes: int
    uplink_bits: float
    downlink_bits: float
    parameters: int
    loopback_bps: float
    codec: CodecTime
    ideal_s: float
    left_out: int
    idle_mb: float
    peak_mb: float
    threads: int
    open_files: int
    probes: dict[str, tuple[float, float, int]]
    storm: Storm


def rss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / MB)


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def files_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MB


def restarted(federation: Federation, server: Process, how: int) -> tuple[Process, Storm]:
    """Stop the server and start it again; watch the clients come back."""
    server.stop(how)
    ended = time.time()
    again = federation.start()
    listens = time.time()
    until(lambda: federation.connected() >= federation.clients, "not all clients come back")
    joins = federation.joins()
    most = max(bisect_left(joins, at + WINDOW_S) - first for first, at in enumerate(joins))
    back_s = joins[federation.clients - 1] - listens
    storm = Storm(listens - ended, back_s, most / federation.clients)
    return again, storm


def measure(federation: Federation, rounds: int, how: int) -> Result:
    server = federation.start()
    processes = [server]
    try:
        idle_mb, began = rss_mb(server.pid), time.monotonic()
        processes += loaders(federation)
        connect_s = until(
            lambda: federation.connected() >= federation.clients, "not all clients connect"
        )
        cpu_before = [cpu_s(process.pid) for process in processes]
        until(lambda: federation.rounds() >= 1, "the first round does not end")
        first_end_s = time.monotonic() - began
        probes = Probes(federation)
        with probes.at_work():
            until(lambda: federation.rounds() >= rounds, f"{rounds} rounds do not end")
        done, peak = federation.rounds(), peak_mb(server.pid)
        threads, files = psutil.Process(server.pid).num_threads(), files_of(server.pid)
        spent = [(cpu_s(process.pid) - cpu) / done
                 for process, cpu in zip(processes, cpu_before, strict=True)]  # fmt: skip
        again, storm = restarted(federation, server, how)
        processes.append(again)
        until(lambda: federation.rounds() >= 1, "no round ends after the restart")
        records = federation.records()
    finally:
        for process in processes:
            process.end()
    steady = records[1 : int(done)]
    wire_bytes = median(r["uplink_wire_bytes"] + r["downlink_wire_bytes"] for r in steady)
    bps, bits = loopback_bps(), median(r["uplink_bits"] for r in steady)
    codec = codec_time(TASK, bits, federation.folder)
    cores = psutil.cpu_count() or 1
    ideal_s = 8 * wire_bytes / bps + federation.drawn * (codec.client_s + codec.server_s) / cores
    return Result(
        clients=federation.clients,
        drawn=federation.drawn,
        connect_s=connect_s,
        first_round_s=first_end_s - records[0]["seconds"],
        rounds=int(done),
        round_s=median(r["seconds"] for r in steady),
        server_cpu_s=spent[0],
        clients_cpu_s=sum(spent[1:]),
        wire_bytes=int(wire_bytes),
        uplink_bits=bits,
        downlink_bits=median(r["downlink_bits"] for r in steady),
        parameters=spec_of(TASK).parameters,
        loopback_bps=bps,
        codec=codec,
        ideal_s=ideal_s,
        left_out=sum(r["left_out"] for r in records[: int(done)]),
        idle_mb=idle_mb,
        peak_mb=peak,
        threads=threads,
        open_files=files,
        probes=probes.summary(),
        storm=storm,
    )


def loaders(federation: Federation) -> list[Process]:
    processes = []
    models = min(federation.drawn, MOST_MODELS) // LOADERS
    for number in range(LOADERS):
        first = federation.clients * number // LOADERS
        count = federation.clients * (number + 1) // LOADERS - first
        arguments = [
            "load_clients.py", f"127.0.0.1:{federation.port}", TASK, str(first), str(count),
            str(max(models, 1)),
        ]  # fmt: skip
        processes.append(Process(arguments, federation.folder / f"load-{number}.log"))
    return processes


def show(found: Result) -> None:
    print(f"{found.clients} clients, {found.drawn} in each round, {found.rounds} rounds")
    print(f"all connected after {found.connect_s:.1f} s, first round begins after "
          f"{found.first_round_s:.1f} s")  # fmt: skip
    print(f"round {found.round_s:.2f} s, ideal {found.ideal_s:.2f} s, times "
          f"{found.round_s / found.ideal_s:.1f}; of processors the server takes "
          f"{found.server_cpu_s:.2f} s and the clients {found.clients_cpu_s:.2f} s")  # fmt: skip
    print(f"{found.wire_bytes / MB:.1f} MB a round, {found.loopback_bps / 1e9:.1f} Gbit/s, codec "
          f"of a client {1000 * found.codec.client_s:.2f} ms and of the server "
          f"{1000 * found.codec.server_s:.2f} ms; {found.uplink_bits:.2f} bits up and "
          f"{found.downlink_bits:.2f} down")  # fmt: skip
    print(f"left out in all rounds: {found.left_out}")
    print(f"server {found.idle_mb:.0f} MB idle, peak {found.peak_mb - found.idle_mb:.0f} MB above; "
          f"{found.threads} threads, {found.open_files} open files")  # fmt: skip
    for name, (middle, longest, times) in found.probes.items():
        print(f"{name}: median {1000 * middle:.0f} ms, longest {1000 * longest:.0f} ms of {times}")
    storm = found.storm
    print(f"restart: {storm.down_s:.1f} s without a server, all back {storm.back_s:.1f} s after; "
          f"most in a second {100 * storm.most_in_a_second:.1f} %")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--drawn", type=int, help="clients of a round [all]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kill", action="store_true", help="the server dies without a word")
    parser.add_argument("--set", action="append", default=[], help="a setting of the server")
    parser.add_argument("--folder", type=Path, help="new, for the run and the logs, which stay")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    raise_limit()  # for the processes that this one starts
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if options.folder is not None:
        options.folder.mkdir()
    kept = TemporaryDirectory() if options.folder is None else nullcontext(str(options.folder))
    with kept as name:
        federation = Federation(
            Path(name), options.clients, options.drawn or options.clients, options.set
        )
        how = signal.SIGKILL if options.kill else signal.SIGTERM
        try:
            result = measure(federation, options.rounds, how)
        except SystemExit:
            for log in sorted(federation.folder.glob("*.log")):
                print(f"{log.name}: {log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            raise
    show(result)
    if options.out is not None:
        document = {"machine": platform.platform(), **asdict(result)}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
