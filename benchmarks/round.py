"""A whole round without training: `fedaq server` and its clients over gRPC on this machine.

    python benchmarks/round.py --out round.json
    python benchmarks/round.py --quick

For each model size, number of clients and bits (the same up and down; 32 is float32): the
median of the seconds per round as the server records them, the first round left out, which
compiles; the bytes of a round that crossed the sockets; the server's peak memory, and that
of the largest client above what importing PyTorch takes. Above ten clients, several share a
process, and their memory is not told apart.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SIZES = (1, 10, 50)
CLIENTS = (2, 10, 50)
BITS = (4, 32)
ROUNDS = 5
# More processes than this would spend their memory on copies of PyTorch.
MAX_CLIENT_PROCESSES = 10
MB = 1e6


@dataclass(frozen=True)
class Case:
    """One federation.

    Attributes
    ----------
    size : int
        Millions of parameters.
    clients : int
    bits : int
        Up and down; 32 is raw float32.
    """

    size: int
    clients: int
    bits: int

    @property
    def client_processes(self) -> int:
        """How many processes the clients share."""
        return min(self.clients, MAX_CLIENT_PROCESSES)

    @property
    def memory_mb(self) -> float:
        """Estimate of what all processes need: weights and update of each client, and imports."""
        model_mb = 4.0 * self.size
        return 2.2 * model_mb * self.clients + 300 * (self.client_processes + 1) + 6 * model_mb


@dataclass(frozen=True)
class Result(Case):
    """What was measured; `client_mb` is None where clients shared a process."""

    seconds: float
    uplink_mb: float
    downlink_mb: float
    server_mb: float
    client_mb: float | None


class Process:
    """A child that writes to a log file, and its peak memory."""

    def __init__(self, arguments: list[str], log: Path, python: str = sys.executable) -> None:
        self._log = log
        with log.open("wb") as file:
            self._popen = subprocess.Popen(
                [python, *arguments],
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def peak_mb(self) -> float:
        """Wait for its end and return its peak memory.

        Raises
        ------
        SystemExit
            If it failed.
        """
        _, status, usage = os.wait4(self._popen.pid, 0)
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        if self._popen.returncode:
            raise SystemExit(f"{self._log.stem}: {self._log.read_text(errors='replace')}")
        return usage.ru_maxrss * 1024 / MB

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._popen.pid

    def stop(self, how: int) -> None:
        """Send it a signal and wait for its end."""
        self._popen.send_signal(how)
        self._popen.wait()

    def end(self) -> None:
        """End it if it still runs."""
        if self._popen.returncode is None:
            self._popen.kill()
            self._popen.wait()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def torch_mb(folder: Path) -> float:
    """Return the peak memory of a process that imports PyTorch and nothing else."""
    return Process(["-c", "import torch"], folder / "torch.log").peak_mb()


def run_case(case: Case, rounds: int, import_mb: float, settings: list[str]) -> Result:
    """Run one federation and return what it took."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        server = Process([*server_arguments(case, rounds, port, folder), *settings],
                         folder / "server.log")  # fmt: skip
        clients = [
            Process(arguments, folder / f"client-{number}.log")
            for number, arguments in enumerate(client_arguments(case, port))
        ]
        try:
            server_mb = server.peak_mb()
            client_mb = max(client.peak_mb() for client in clients)
        finally:
            for process in (server, *clients):
                process.end()
        records = json.loads((folder / "run" / "run.json").read_text())["rounds"][1:]
    assert all(record["clients"] == case.clients for record in records)
    return Result(
        **vars(case),
        seconds=median(record["seconds"] for record in records),
        uplink_mb=median(record["uplink_wire_bytes"] for record in records) / MB,
        downlink_mb=median(record["downlink_wire_bytes"] for record in records) / MB,
        server_mb=server_mb,
        client_mb=client_mb - import_mb if case.client_processes == case.clients else None,
    )


def server_arguments(case: Case, rounds: int, port: int, folder: Path) -> list[str]:
    scheme = "fp32" if case.bits == 32 else "fixed"
    return [
        "-m", "fedaq", "server", "--task", f"idle_task:m{case.size}", "--port", str(port),
        "--clients", str(case.clients), "--rounds", str(rounds), "--out", str(folder / "run"),
        "--scheme", scheme,
        "--set", f"fixed.uplink_bits={case.bits}", "--set", f"fixed.downlink_bits={case.bits}",
    ]  # fmt: skip


def client_arguments(case: Case, port: int) -> Iterator[list[str]]:
    address, task = f"127.0.0.1:{port}", f"idle_task:m{case.size}"
    processes = case.client_processes
    for number in range(processes):
        if processes == case.clients:
            yield ["-m", "fedaq", "client", "--server", address, "--task", task,
                   "--name", f"client-{number}"]  # fmt: skip
        else:
            first = case.clients * number // processes
            count = case.clients * (number + 1) // processes - first
            yield ["many_clients.py", address, task, str(first), str(count)]


def available_mb() -> float:
    """Return the memory that is free for this benchmark."""
    return float(psutil.virtual_memory().available / MB)


def show(console: Console, results: list[Result]) -> None:
    table = Table(title="A round without training", title_justify="left")
    for name in ("M parameters", "clients", "bits", "s/round", "MB up", "MB down",
                 "server peak MB", "client MB above torch"):  # fmt: skip
        table.add_column(name, justify="right")
    for r in results:
        client_mb = "-" if r.client_mb is None else f"{r.client_mb:.0f}"
        table.add_row(
            str(r.size), str(r.clients), str(r.bits), f"{r.seconds:.2f}", f"{r.uplink_mb:.1f}",
            f"{r.downlink_mb:.1f}", f"{r.server_mb:.0f}", client_mb,
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=(*SIZES, 5, 100))
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="1 M parameters, 2 clients, 3 rounds")
    parser.add_argument("--set", action="append", default=[], help="a setting of the server")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.clients, options.rounds = (1,), (2,), 3
    console = Console()
    settings = [word for text in options.set for word in ("--set", text)]
    with TemporaryDirectory() as name:
        import_mb = torch_mb(Path(name))
    results: list[Result] = []
    for size, clients, bits in product(options.sizes, options.clients, options.bits):
        case = Case(size, clients, bits)
        if case.memory_mb > available_mb():
            console.print(f"left out, too large for this machine's memory now: {case}")
            continue
        results.append(run_case(case, options.rounds, import_mb, settings))
        console.print(results[-1])
    show(console, results)
    if options.out is not None:
        options.out.write_text(json.dumps(document(results, import_mb), indent=1) + "\n")


def document(results: list[Result], import_mb: float) -> dict[str, Any]:
    return {
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "torch_import_mb": import_mb,
        "results": [asdict(result) for result in results],
    }


if __name__ == "__main__":
    main()
