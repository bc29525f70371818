"""How long a client takes to start.

    python benchmarks/startup.py --out startup.json

`fedaq client --help`, the fastest and the median of several starts; and a client of one round on
digits, from its start to its end, that finds its loops compiled, has to compile them first, or
has nothing else to do meanwhile (compiles them when it first needs them, as it did before).
"""

import argparse
import json
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
WRAPPER = """
import pathlib, runpy, sys
from fedaq.codec import kernels
_, cache, when, *arguments = sys.argv
kernels._cache_folders = lambda: [pathlib.Path(cache)]
if when == "late":
    kernels.get_ready = lambda: None
sys.argv = ["fedaq", *arguments]
runpy.run_module("fedaq", run_name="__main__", alter_sys=True)
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
        table.add_row(name.removesuffix("_s").replace("_", " "), f"{value:.2f}")
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")


def seconds(command: list[str]) -> float:
    began = perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return perf_counter() - began


def clients() -> dict[str, float]:
    """Return the fastest of several rounds of each kind of client, taken in turn."""
    taken: dict[str, list[float]] = {"compiled": [], "compiles": [], "compiles_late": []}
    with TemporaryDirectory() as text:
        warm = Path(text) / "warm"
        one_round(warm, "early")
        for number in range(REPEATS):
            cold = Path(text) / str(number)
            taken["compiled"].append(one_round(warm, "early"))
            taken["compiles"].append(one_round(cold / "early", "early"))
            taken["compiles_late"].append(one_round(cold / "late", "late"))
    return {f"client_{name}_s": min(values) for name, values in taken.items()}


def one_round(cache: Path, when: str) -> float:
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
            return seconds(
                [sys.executable, "-c", WRAPPER, str(cache), when, "client",
                 "--server", f"127.0.0.1:{port}"]
            )  # fmt: skip
        finally:
            server.communicate()


if __name__ == "__main__":
    main()
