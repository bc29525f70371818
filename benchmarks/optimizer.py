"""Seconds to allocate bits and to plan rounds, over clients x tensors, and two worked examples.

    python benchmarks/optimizer.py --out optimizer.json
    python benchmarks/optimizer.py --plans --out plans.json
    python benchmarks/optimizer.py --example

Every client has 100 tensors, with ranges, sizes and joules per bit of its own; the budget
pays for about three bits per value. Seconds are the fastest of several repeats; the last
column is how many times longer ten times the items take, 10 where time is linear.

`--plans` prints what the four forms of `fedaq` take: for `plan` and `grant` in the first round,
when nothing is known of the updates, and in the second, and for `learn`. Clients differ in weight,
radio and ranges. Times are those of one call, after a small federation has warmed up. While the
second round is planned in a thread, as the server does it, a heartbeat on the event loop is due
every millisecond; the last column says by how much it was late at worst.

`--example` prints the tables of docs/research/theory.md: what the price of a joule makes of radios,
and what clipping leaves out and saves.
"""

import argparse
import asyncio
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import starmap
from math import erfc, exp, log2, pi, sqrt
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from rich.console import Console
from rich.table import Table

from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import Floats, Spread
from fedaq.energy.cost import RadioCost, downlink_j_per_bit
from fedaq.settings import load_settings
from fedaq_server.schemes.loading import load_scheme
from fedaq_server.schemes.optimizer import (
    Items,
    allocate,
    bits_at_price,
    error_table,
    make_items,
    resolution,
)
from fedaq_server.schemes.scheme import ClientState, Outcome, RoundState, Scheme
from fedaq_server.schemes.spreads import arrays, stacked

TENSORS = 100
CLIENTS = (1, 10, 100, 1000, 10_000)
BUDGET = 3.5
REPEATS = 3

# Federations that are planned: clients x tensors, of so many values in all.
SIZES = ((10, 10), (50, 160), (100, 200), (1000, 20), (1000, 200))
VALUES = 1_000_000
ROUNDS = 30
# As many values as the server shows a scheme of what goes down.
SAMPLE, LEAST_SAMPLE = 2**17, 2**8
# Bits per value, up and down together, that a budget pays for in each round.
PACKED_BITS, CODED_BITS = 8.0, 0.35
BEAT_S = 1e-3

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
    rows = [[Spread(-half, half, 0.0, half / 4) for half in row.tolist()] for row in halves]
    return make_items(
        error_table(stacked(rows), clip=True),
        sizes,
        coefficients=np.array(shares) ** 2,
        j_per_bit=np.array(costs),
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


@dataclass(frozen=True)
class Took:
    """Seconds of one call, on the wall and on all processors."""

    wall_s: float
    processor_s: float


@dataclass(frozen=True)
class Planned:
    """What one scheme took in one federation; grants are per client."""

    scheme: str
    clients: int
    tensors: int
    first_plan: Took
    plan: Took
    first_grant: Took
    grant: Took
    learn: Took
    late_s: float


@dataclass(frozen=True)
class Sent:
    """What a federation sends in a round: sizes and spreads of its tensors."""

    spec: ModelSpec
    weights: tuple[Spread, ...]
    samples: tuple[Floats, ...]
    updates: dict[str, tuple[Spread, ...]]


def drawn(clients: int, tensors: int) -> Sent:
    rng = np.random.default_rng(1)
    sizes = np.maximum(VALUES * rng.dirichlet(np.ones(tensors)), 1).astype(int).tolist()
    scales = 10 ** rng.uniform(-2.5, -1, tensors)
    sample = max(SAMPLE // tensors, LEAST_SAMPLE)
    spread_by_scale = [spread(scale) for scale in scales.tolist()]
    return Sent(
        ModelSpec(tuple(TensorSpec(f"t{i}", (size,)) for i, size in enumerate(sizes))),
        tuple(spread_by_scale),
        tuple(
            (scale * rng.standard_normal(min(size, sample))).astype(np.float32)
            for scale, size in zip(scales, sizes, strict=True)
        ),
        {
            f"client-{i:04}": tuple(spread(scale) for scale in row)
            for i, row in enumerate(
                (0.3 * scales * 10 ** rng.uniform(-0.5, 0.5, (clients, tensors))).tolist()
            )
        },
    )


def spread(deviation: float) -> Spread:
    return Spread(-4 * deviation, 4 * deviation, 0.0, deviation, 0.7 * deviation)


def first_round(sent: Sent, *, differences: bool) -> RoundState:
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.full(len(sent.updates), 10.0)).tolist()
    costs = (10 ** rng.uniform(-7.5, -6.5, len(sent.updates))).tolist()
    clients = {
        name: ClientState(name, share, RadioCost(cost, cost), None)
        for name, share, cost in zip(sent.updates, shares, costs, strict=True)
    }
    nothing = Spread(0.0, 0.0, 0.0, 0.0, 0.0)
    return RoundState(
        round=1,
        rounds=ROUNDS,
        spec=sent.spec,
        downlink_ranges=(nothing,) * len(sent.weights) if differences else sent.weights,
        clients=clients,
        downlink_j_per_bit=downlink_j_per_bit(
            [client.radio for client in clients.values()], broadcast=False
        ),
        first_ranges=sent.weights,
        downlink_samples=tuple(map(np.zeros_like, sent.samples)) if differences else sent.samples,
        differences=differences,
    )


def second_round(first: RoundState, sent: Sent) -> RoundState:
    clients = {
        name: replace(client, ranges=sent.updates[name]) for name, client in first.clients.items()
    }
    return replace(
        first,
        round=2,
        clients=clients,
        downlink_ranges=sent.weights,
        downlink_samples=sent.samples,
    )


def bit_j(state: RoundState) -> float:
    """Return the joules of one bit per value in both directions."""
    uplinks = sum(client.radio.uplink_j_per_bit for client in state.clients.values())
    return state.spec.parameters * (state.downlink_j_per_bit + uplinks)


PACKED = ("coding.entropy=false", "coding.downlink=model")
FORMS: dict[str, tuple[tuple[str, ...], float | None]] = {
    "packed budget": (PACKED, PACKED_BITS),
    "coded budget": ((), CODED_BITS),
    "packed steps": (PACKED, None),
    "coded steps": ((), None),
}


def scheme_named(name: str, state: RoundState) -> Scheme:
    assignments, bits = FORMS[name]
    if bits is not None:
        assignments += (f"energy.budget_j={ROUNDS * bits / 2 * bit_j(state)}",)
    return load_scheme(load_settings(environment={}, assignments=["scheme=fedaq", *assignments]))


def timed(call: Callable[[], object]) -> Took:
    wall, processor = perf_counter(), process_time()
    call()
    return Took(perf_counter() - wall, process_time() - processor)


def timed_grants(scheme: Scheme, state: RoundState, sent: Sent) -> Took:
    """Return what the grant of one client takes, on average."""
    plan = scheme.plan(state)
    assert plan is not None

    def grant_all() -> None:
        for name, client in state.clients.items():
            scheme.grant(state, plan, client, sent.updates[name])

    took = timed(grant_all)
    return Took(took.wall_s / len(sent.updates), took.processor_s / len(sent.updates))


async def latest_beat(call: Callable[[], object]) -> float:
    """Return how late, at worst, the event loop was while a thread made the call."""
    called = asyncio.ensure_future(asyncio.to_thread(call))
    latest = 0.0
    while not called.done():
        due = perf_counter() + BEAT_S
        await asyncio.sleep(BEAT_S)
        latest = max(latest, perf_counter() - due)
    await called
    return latest


def planned(name: str, sent: Sent) -> Planned:
    first = first_round(sent, differences=name.startswith("coded"))
    second = second_round(first, sent)
    scheme = scheme_named(name, first)
    sizes = dict.fromkeys(sent.updates, 2 * VALUES // 100)
    outcome = Outcome(1, 0.5, 1.0, 1.0, sent.updates, 0.0, sizes)
    return Planned(
        scheme=name,
        clients=len(sent.updates),
        tensors=len(sent.weights),
        first_plan=timed(partial(scheme.plan, first)),
        first_grant=timed_grants(scheme, first, sent),
        learn=timed(partial(scheme.learn, outcome)),
        plan=timed(partial(scheme.plan, second)),
        grant=timed_grants(scheme, second, sent),
        late_s=asyncio.run(latest_beat(partial(scheme.plan, second))),
    )


def plans_table(found: list[Planned]) -> Table:
    table = Table(
        title=f"Milliseconds, wall/processor; {VALUES:,} values, {ROUNDS} rounds",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("fedaq", no_wrap=True)
    for heading in ("clients", "1st plan", "plan", "1st grant", "grant", "learn", "late"):
        table.add_column(heading, justify="right", no_wrap=True)
    for p in found:
        table.add_row(
            p.scheme,
            f"{p.clients}x{p.tensors}",
            *map(milliseconds, (p.first_plan, p.plan, p.first_grant, p.grant, p.learn)),
            f"{1e3 * p.late_s:.0f}",
        )
    return table


def milliseconds(took: Took) -> str:
    return f"{short(1e3 * took.wall_s)}/{short(1e3 * took.processor_s)}"


def short(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


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
        items = make_items(
            error_table(arrays([spread]), clip=False)[None],
            [ELEMENTS],
            coefficients=np.array([SHARE**2]),
            j_per_bit=np.array([cost]),
        )
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
    parser = argparse.ArgumentParser(description="Seconds to allocate bits and to plan rounds.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--plans", action="store_true", help="time the schemes instead")
    parser.add_argument("--example", action="store_true", help="print the worked examples instead")
    arguments = parser.parse_args()
    console = Console()
    if arguments.example:
        console.print(radio_table(), clipping_table())
        return
    report: dict[str, object] = {"machine": platform.machine(), "numpy": np.__version__}
    if arguments.plans:
        for name in FORMS:
            planned(name, drawn(2, 2))
        found = [planned(name, sent) for sent in starmap(drawn, SIZES) for name in FORMS]
        console.print(plans_table(found))
        report |= {"values": VALUES, "plans": list(map(asdict, found))}
    else:
        points = curve()
        console.print(curve_table(points))
        report |= {"tensors": TENSORS, "points": [asdict(point) for point in points]}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
