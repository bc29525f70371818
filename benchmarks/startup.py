"""How long a client takes to start.

    python benchmarks/startup.py --out startup.json

`fedaq client --help`, the fastest and the median of several starts; a client of one round on
digits, from its start to its end; and the same client when its host has not kept any byte code of
Python's. The codec's loops come compiled: their library is loaded when they are first called, which
is timed as well.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from rich.console import Console
from rich.table import Table
from round import free_port

STARTS, REPEATS = 10, 3
FIRST_CALL = """
import time
import numpy as np
from fedaq.codec import kernels
start = time.perf_counter()
kernels.statistics(np.ones(100, np.float32))
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    out = parser.parse_args().out
    helps = [seconds([sys.executable, "-m", "fedaq", "client", "--help"]) for _ in range(STARTS)]
    figures = {"help_fastest_s": min(helps), "help_median_s": median(helps), **clients()}
    table = Table("seconds", "", title="Start of a client")
    for name, value in figures.items():
        table.add_row(name.removesuffix("_s").replace("_", " "), f"{value:.3f}")
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")


def seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    began = perf_counter()
    everything = {**os.environ, **(environment or {})}
    subprocess.run(command, check=True, capture_output=True, env=everything)
    return perf_counter() - began


def clients() -> dict[str, float]:
    """Return the fastest of several rounds of each kind of client, taken in turn."""
    taken: dict[str, list[float]] = {"client": [], "client_without_byte_code": []}
    first_calls = []
    one_round({})
    for _ in range(REPEATS):
        taken["client"].append(one_round({}))
        with TemporaryDirectory() as empty:
            nothing_kept = {"PYTHONPYCACHEPREFIX": empty}
            taken["client_without_byte_code"].append(one_round(nothing_kept))
        first = subprocess.check_output([sys.executable, "-c", FIRST_CALL], text=True)
        first_calls.append(float(first))
    figures = {f"{kind}_s": min(values) for kind, values in taken.items()}
    return {**figures, "first_call_of_a_loop_s": min(first_calls)}


def one_round(environment: dict[str, str]) -> float:
    port = free_port()
    with TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "fedaq", "server", "--clients", "1", "--rounds", "1",
             "--port", str(port), "--out", f"{folder}/run"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        while "listening on" not in server.stdout.readline():
            assert server.poll() is None
        try:
            client = [sys.executable, "-m", "fedaq", "client", "--server", f"127.0.0.1:{port}"]
            return seconds(client, environment)
        finally:
            server.communicate()


if __name__ == "__main__":
    main()
