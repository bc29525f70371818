"""The same round through fedaq and through Flower 1.42.0, and our codec beside NVFlare's.

    python benchmarks/peers.py --out peers.json
    python benchmarks/peers.py --size 100 --clients 2 --rounds 3 --only-rounds

Makes environments for the peers below benchmarks/.venv first, if they are not there: this
needs pip and a package index. NVFlare's filter imports PyTorch and borrows it from the
environment that runs this file. The seconds are medians over the rounds but the first; memory is
the peak of a process, and in models: how much more it is than with 1 M parameters, beside how much
larger the model is. The speeds are GB/s of float32 values on one thread, from the fastest of
several repeats.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table
from round import HERE, MB, Case, Process, free_port, run_case

from fedaq.codec import quantizer
from fedaq.codec.quantizer import Key

ENVIRONMENTS = HERE / ".venv"
FLOWER = "Flower 1.42.0"
SMALL = 1
STARTED_S = 300
CODEC_VALUES = 8_000_000
CODEC_REPEATS = 7
CODEC_BITS = 4


@dataclass(frozen=True)
class Round:
    """What a round took in one system."""

    system: str
    seconds: float
    wire_mb: float
    server_mb: float
    client_mb: float | None

    def models(self, small: "Round", more_mb: float) -> tuple[float, float | None]:
        """Return the memory of server and client above a smaller model's, in what is more of it."""
        server = (self.server_mb - small.server_mb) / more_mb
        if self.client_mb is None or small.client_mb is None:
            return server, None
        return server, (self.client_mb - small.client_mb) / more_mb


@dataclass(frozen=True)
class Codec:
    """Speeds of one codec."""

    system: str
    quantize_gb_per_s: float
    restore_gb_per_s: float


def environment(name: str, *pip: str) -> str:
    """Return the Python of an environment that holds what peers-`name`.txt lists."""
    folder = ENVIRONMENTS / name
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *pip, "-r", HERE / f"peers-{name}.txt"],
            check=True,
        )
        complete.touch()
    return str(python)


def nvflare_environment() -> str:
    """Return the Python of NVFlare's environment, which sees this one's packages after its own."""
    python = environment("nvflare", "--no-deps")
    (packages,) = Path(python).parents[1].glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    return python


def wait_for(port: int) -> None:
    """Wait until somebody listens on a port of this machine.

    Raises
    ------
    SystemExit
        If nobody does for minutes.
    """
    end = time.monotonic() + STARTED_S
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit(f"nobody listens on port {port} after {STARTED_S} s")


def flower_round(python: str, case: Case, rounds: int) -> Round:
    """Run Flower's server and clients, each a process."""
    port = free_port()
    script = "flower_round.py"
    sizes = [str(case.clients), str(rounds), str(case.size * 1_000_000)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "rounds.json"
        server = Process(
            [script, "server", str(port), *sizes, str(out)], folder / "server.log", python
        )
        wait_for(port)  # a client of Flower gives up where nobody listens yet
        clients = [
            Process([script, "client", str(port)], folder / f"client-{number}.log", python)
            for number in range(case.clients)
        ]
        try:
            server_mb = server.peak_mb()
            client_mb = max(client.peak_mb() for client in clients)
        finally:
            for process in (server, *clients):
                process.end()
        records = json.loads(out.read_text())[1:]
    return Round(
        FLOWER,
        median(record["seconds"] for record in records),
        median(record["uplink_bytes"] + record["downlink_bytes"] for record in records) / MB,
        server_mb,
        client_mb,
    )


def our_round(name: str, case: Case, rounds: int, *settings: str) -> Round:
    result = run_case(case, rounds, 0.0, list(settings))
    wire_mb = result.uplink_mb + result.downlink_mb
    return Round(name, result.seconds, wire_mb, result.server_mb, result.client_mb)


def all_rounds(python: str, size: int, clients: int, rounds: int) -> list[Round]:
    coarse, plain = Case(size, clients, 4), Case(size, clients, 32)
    return [
        flower_round(python, coarse, rounds),
        our_round("fedaq", coarse, rounds, "--set", "scheme=fedaq"),
        our_round("fedaq, 4/4 bits", coarse, rounds),
        our_round("fedaq, float32", plain, rounds),
    ]


def nvflare_codec(python: str) -> Codec:
    arguments = [python, "nvflare_filter.py", str(CODEC_VALUES), str(CODEC_REPEATS)]
    printed = subprocess.run(arguments, cwd=HERE, check=True, capture_output=True, text=True).stdout
    seconds = json.loads(printed.splitlines()[-1])
    return Codec("NVFlare 2.9 float16", _speed(seconds["quantize_s"]), _speed(seconds["restore_s"]))


def our_codec() -> Codec:
    values = np.random.default_rng(1).standard_normal(CODEC_VALUES, np.float32)
    grid = quantizer.range_grid(quantizer.value_range(values), CODEC_BITS)
    packed = np.empty(quantizer.packed_bytes(CODEC_VALUES, CODEC_BITS), np.uint8)
    restored = np.empty_like(values)
    quantize_s, restore_s = [], []
    for _ in range(CODEC_REPEATS):
        began = perf_counter()
        quantizer.quantize(values, grid, Key(1, 2), first=0, out=packed)
        quantize_s.append(perf_counter() - began)
        began = perf_counter()
        quantizer.dequantize(packed, grid, restored)
        restore_s.append(perf_counter() - began)
    return Codec(f"fedaq, {CODEC_BITS} bits", _speed(min(quantize_s)), _speed(min(restore_s)))


def _speed(seconds: float) -> float:
    return CODEC_VALUES * 4 / seconds / 1e9


def show_rounds(console: Console, rounds: list[Round], small: list[Round], more_mb: float) -> None:
    table = Table("", "s/round", "times faster", "MB on the wire", "server MB", "client MB",
                  "server, models", "client, models")  # fmt: skip
    for r, less in zip(rounds, small, strict=True):
        faster = rounds[0].seconds / r.seconds
        server, client = r.models(less, more_mb)
        table.add_row(
            r.system, f"{r.seconds:.2f}", f"{faster:.1f}", f"{r.wire_mb:.1f}",
            f"{r.server_mb:.0f}", "-" if r.client_mb is None else f"{r.client_mb:.0f}",
            f"{server:.2f}", "-" if client is None else f"{client:.2f}",
        )  # fmt: skip
    console.print(table)


def show_codecs(console: Console, codecs: list[Codec]) -> None:
    table = Table("", "quantize GB/s", "restore GB/s")
    for c in codecs:
        table.add_row(c.system, f"{c.quantize_gb_per_s:.2f}", f"{c.restore_gb_per_s:.2f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=10, choices=(10, 50, 100), help="M parameters")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only-rounds", action="store_true", help="leave the codecs out")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    console, flower = Console(), environment("flower")
    small = all_rounds(flower, SMALL, options.clients, 2)
    rounds = all_rounds(flower, options.size, options.clients, options.rounds)
    show_rounds(console, rounds, small, 4.0 * (options.size - SMALL))
    codecs = []
    if not options.only_rounds:
        codecs = [nvflare_codec(nvflare_environment()), our_codec()]
        show_codecs(console, codecs)
    if options.out is not None:
        document = {
            "size_m": options.size,
            "clients": options.clients,
            "rounds": [asdict(r) for r in rounds],
            "small_rounds": [asdict(r) for r in small],
            "codecs": [asdict(c) for c in codecs],
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
