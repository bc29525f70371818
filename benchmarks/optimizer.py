"""Seconds to allocate bits, over clients x tensors, and two small worked examples.

    python benchmarks/optimizer.py --out optimizer.json
    python benchmarks/optimizer.py --example

Every client has 100 tensors, with ranges, sizes and joules per bit of its own; the budget
pays for about three bits per value. Seconds are the fastest of several repeats; the last
column is how many times longer ten times the items take, 10 where time is linear.

`--example` prints the tables of docs/research/theory.md: what the price of a joule makes of radios,
and what clipping leaves out and saves.
"""

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from math import erfc, exp, log2, pi, sqrt
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table

from fedaq.codec.quantizer import Spread
from fedaq_server.schemes.optimizer import (
    Items,
    allocate,
    bits_at_price,
    join,
    make_items,
    resolution,
)

TENSORS = 100
CLIENTS = (1, 10, 100, 1000, 10_000)
BUDGET = 3.5
REPEATS = 3

# The example: one tensor of a client's update, the same for all, and a price of a joule.
ELEMENTS = 10_000
WIDTH = 0.4
SHARE = 0.25
CHEAPEST_J_PER_BIT = 1e-7
PRICE = 10.0


@dataclass(frozen=True)
class Point:
    """Time of one size; `ratio` is to the size before, None for the first."""

    items: int
    build_s: float
    allocate_s: float
    ratio: float | None


def build(clients: int) -> Items:
    rng = np.random.default_rng(1)
    sizes = rng.integers(10, 100_000, TENSORS).tolist()
    shares = rng.dirichlet(np.ones(clients)).tolist()
    costs = (10 ** rng.uniform(-8, -6, clients)).tolist()
    halves = 10 ** rng.uniform(-4, 0, (clients, TENSORS))
    return join(
        [
            make_items(
                [Spread(-half, half, 0.0, half / 4) for half in row.tolist()],
                sizes,
                coefficient=share**2,
                j_per_bit=cost,
                clip=True,
            )
            for row, share, cost in zip(halves, shares, costs, strict=True)
        ]
    )


def measure(clients: int, before: Point | None) -> Point:
    start = perf_counter()
    items = build(clients)
    build_s = perf_counter() - start
    budget_j = BUDGET * items.energy_j(np.ones(len(items.bit_j), np.int64))
    best = float("inf")
    for _ in range(REPEATS):
        start = perf_counter()
        allocate(items, budget_j)
        best = min(best, perf_counter() - start)
    ratio = None if before is None else best / before.allocate_s
    return Point(len(items.bit_j), build_s, best, ratio)


def curve() -> list[Point]:
    points: list[Point] = []
    for clients in CLIENTS:
        points.append(measure(clients, points[-1] if points else None))
    return points


def curve_table(points: list[Point]) -> Table:
    table = Table(title=f"Seconds to allocate; {TENSORS} tensors per client")
    for heading in ("items", "build", "allocate", "per item", "10x items"):
        table.add_column(heading, justify="right")
    for point in points:
        table.add_row(
            f"{point.items:,}",
            f"{point.build_s:.4f} s",
            f"{point.allocate_s:.4f} s",
            f"{point.allocate_s / point.items * 1e9:,.0f} ns",
            "" if point.ratio is None else f"x{point.ratio:.1f}",
        )
    return table


def radio_table() -> Table:
    """Show what one price makes of radios that differ in nothing but joules per bit."""
    table = Table(
        title=f"Bits of a client at one price: R = {WIDTH:g}, p = {SHARE:g}, "
        f"lambda = {PRICE:g}, {ELEMENTS:,} values"
    )
    for heading in ("nJ per bit", "r", "log2(R / r)", "bits", "mJ"):
        table.add_column(heading, justify="right")
    spread = Spread(-WIDTH / 2, WIDTH / 2, 0.0, WIDTH / 8)
    for doublings in range(7):
        cost = CHEAPEST_J_PER_BIT * 2**doublings
        items = make_items([spread], [ELEMENTS], coefficient=SHARE**2, j_per_bit=cost, clip=False)
        step = resolution(PRICE, cost, SHARE**2)
        bits = bits_at_price(items, PRICE)
        table.add_row(
            f"{cost * 1e9:.0f}",
            f"{step:.5f}",
            f"{log2(WIDTH / step):.2f}",
            str(int(bits[0])),
            f"{items.energy_j(bits) * 1e3:.2f}",
        )
    return table


def normal_beyond(reach: float) -> float:
    """Return ``E max(|x| - reach, 0)**2`` of a normal value with deviation 1."""
    tail = erfc(reach / sqrt(2)) / 2
    density = exp(-(reach**2) / 2) / sqrt(2 * pi)
    return 2 * ((1 + reach**2) * tail - reach * density)


def laplace_beyond(reach: float) -> float:
    """Return ``E max(|x| - reach, 0)**2`` of a Laplace value with deviation 1."""
    return exp(-sqrt(2) * reach)


def clipping_table() -> Table:
    """Show errors per value, in variances, of ranges cut at b + 2 deviations."""
    table = Table(
        title="Clipping at b + 2 deviations: errors in variances, bits saved for R in deviations"
    )
    for heading in (
        "bits", "rounding", "cut, normal", "cut, Laplace",
        "saved, R 10", "R 20", "R 40",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for bits in (1, 2, 3, 4, 6, 8):
        reach = bits + 2
        table.add_row(
            str(bits),
            f"{(2 * reach / (2**bits - 1)) ** 2 / 4:.1e}",
            f"{normal_beyond(reach):.1e}",
            f"{laplace_beyond(reach):.1e}",
            *(f"{max(log2(width / (2 * reach)), 0.0):.1f}" for width in (10, 20, 40)),
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to allocate bits.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--example", action="store_true", help="print the worked examples instead")
    arguments = parser.parse_args()
    console = Console()
    if arguments.example:
        console.print(radio_table(), clipping_table())
        return
    points = curve()
    console.print(curve_table(points))
    if arguments.out is not None:
        report = {
            "machine": platform.machine(),
            "numpy": np.__version__,
            "tensors": TENSORS,
            "points": [asdict(point) for point in points],
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
