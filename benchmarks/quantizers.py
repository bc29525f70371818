"""Error per bit actually sent of many quantizers, on the updates and weights of a recorded run.

    python benchmarks/quantizers.py
    python benchmarks/quantizers.py --task fashion-mnist --data DATA --rounds 40 \
        --recording runs/recording --picture docs/research/quantizers.png

Trains with ``fp32``, keeps every payload, and takes the clients'
updates, the weights and the differences of successive models from an early, a middle and the
last round. Each tensor is coded on its own. Errors are mean squares in units of the tensor's
variance, bits are per value; both are means over all values. docs/research/quantizers.md tells the
methods and the findings.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from quantizer_coders import (
    MODES,
    REACHES,
    WIDTHS,
    Coder,
    Method,
    coded,
    dead_zone,
    dithered,
    methods,
    nearest,
    reach_error,
    stochastic,
)
from quantizer_measures import (
    CLIENTS,
    SUMMED_ROUNDS,
    Curve,
    Recording,
    Sample,
    context_bits,
    measure,
    measure_mean,
    measure_sum,
    prediction_errors,
    record,
)
from rich.table import Table

from fedaq.codec.quantizer import Floats
from fedaq.process.terminal import console

# Of a panel: least and greatest bits, least and greatest error.
Limits = tuple[float, float, float, float]
KINDS = ("updates", "weights", "differences")
COARSE_RATIOS = (0.5, 1.0, 2.0, 4.0, 8.0)
SUM_RATIOS = (1.0, 2.0, 4.0, 8.0, 16.0)
RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0)
# Packed codes and their headers take a little more than whole bits.
MEAN_RATES = (0.2, 0.5, 1.05, 2.05, 3.05)
SUM_RATES = (0.25, 0.35, 0.5, 1.0, 1.5, 2.0)

# How methods are drawn: the first of these that is part of the name.
COLORS = {
    "EDEN": "tab:purple",
    "stochastic": "tab:red",
    "dither": "tab:blue",
    "nearest, shifted": "tab:olive",
    "nearest": "tab:green",
    "dead zone": "tab:brown",
}
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 6, 8)
MARKERS = {
    "rotation": "x",
    "blocks of": "s",
    "block steps": "D",
    "block tables": "+",
    "zstandard": "^",
    "from lo": "v",
    "min-max": "v",
    "best reach": "o",
    "feedback": "o",
    "b + 2": "1",
    "": ".",
}

# Methods that are shown for the mean of all clients.
AVERAGED = (
    "stochastic, b + 2", "dither, b + 2", "rotation, dither, b + 2", "EDEN",
    "stochastic", "dither", "nearest", "dead zone 0.6",
)  # fmt: skip
# Those that are summed over rounds, and whether what is lost is added to the next update.
SUMMED: tuple[tuple[str, Coder, bool], ...] = (
    ("stochastic", coded(stochastic), False),
    ("dither", coded(dithered), False),
    ("nearest", coded(nearest), False),
    ("dither, feedback", coded(dithered), True),
    ("nearest, feedback", coded(nearest), True),
    ("dead zone 0.6, feedback", coded(dead_zone(0.6)), True),
)


# ---------------------------------------------------------------- showing


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def table_of(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title)
    table.add_column(headings[0])
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    return table


def packed_table(kind: str, curves: Sequence[Curve]) -> Table:
    """Show errors at whole bits; `more` is what side information adds to four bits."""
    table = table_of(
        f"{kind}, packed: error at b bits",
        ("method", *map(str, WIDTHS), "more", "bias, b 2", "b 4"),
    )
    for curve in curves:
        points = {int(point.setting): point for point in curve.points}
        table.add_row(
            curve.method.name,
            *(number(points[b].error) if b in points else "-" for b in WIDTHS),
            f"{points[4].bits - 4:.3f}",
            *(f"{max(points[b].bias / points[b].error, 0):.0%}" for b in (2, 4)),
        )
    return table


def rate_table(title: str, curves: Sequence[Curve], rates: Sequence[float]) -> Table:
    table = table_of(f"{title}: error at a rate", ("method", *(f"{rate:g}" for rate in rates)))
    table.add_row("(a normal value's limit)", *(number(4.0**-rate) for rate in rates))
    for curve in curves:
        table.add_row(curve.method.name, *(number(curve.error_at(rate)) for rate in rates))
    return table


def reach_table(kinds: dict[str, list[Floats]]) -> Table:
    """Show the one reach for all tensors with the least error, and what one each would gain."""
    table = table_of(
        "best reach in deviations (error less with a reach for each tensor)",
        ("kind, rounding", *map(str, WIDTHS)),
    )
    for kind, tensors in kinds.items():
        for rounding in MODES:
            cells = []
            for bits in WIDTHS:
                errors = np.array([
                    [reach_error(x, r, bits, rounding) / x.var() for r in REACHES]
                    for x in tensors
                ])  # fmt: skip
                together = errors.sum(axis=0)
                gain = 1 - errors.min(axis=1).sum() / together.min()
                cells.append(f"{REACHES[together.argmin()]:.1f} ({gain:.0%})")
            table.add_row(f"{kind}, {rounding.__name__}", *cells)
    return table


def prediction_table(samples: dict[str, list[Sample]]) -> Table:
    names = (
        "normal", "Laplace", "with mean size", "last round, same step", "last round, same ratio",
        "mean size and last",
    )  # fmt: skip
    table = table_of("error of the predicted length", ("kind, rounding", "step", "bits", *names))
    for kind, found in samples.items():
        for rounding in (dithered, nearest):
            for ratio in COARSE_RATIOS:
                bits, errors = prediction_errors(found, ratio, rounding)
                table.add_row(
                    f"{kind}, {rounding.__name__}",
                    f"{ratio:g}",
                    f"{bits:.3f}",
                    *(f"{errors[name]:.1%}" for name in names),
                )
    return table


def context_table(samples: dict[str, list[Sample]]) -> Table:
    table = table_of(
        "bits per value, nearest, with tables for classes known from",
        ("kind", "step", "one table", "blocks of 64", "last difference", "own last"),
    )
    for kind in ("updates", "differences"):
        for ratio in COARSE_RATIOS:
            bits = context_bits(samples[kind], ratio)
            table.add_row(kind, f"{ratio:g}", *(f"{value:.3f}" for value in bits.values()))
    return table


def first_match(name: str, choices: dict[str, str]) -> str:
    return next(value for part, value in choices.items() if part in name)


def draw_panel(axes: Axes, title: str, curves: Sequence[Curve], limits: Limits) -> None:
    for curve in curves:
        name = curve.method.name
        bits, errors = zip(*sorted((p.bits, p.error) for p in curve.points), strict=True)
        axes.plot(
            bits,
            errors,
            color=first_match(name, COLORS),
            marker=first_match(name, MARKERS),
            linestyle="--" if "rotation" in name or "from lo" in name else "-",
            linewidth=1.2,
            markersize=5,
            label=name,
        )
    rates = np.linspace(0.05, 9, 400)
    axes.plot(rates, 4.0**-rates, "k", linewidth=2, label="limit of a normal value, $2^{-2R}$")
    axes.set_title(title)
    axes.set_xlabel("bits per value")
    axes.set_ylabel("error / variance")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*limits[:2])
    axes.set_ylim(*limits[2:])
    ticks = [tick for tick in TICKS if limits[0] <= tick <= limits[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)


def picture(kinds: dict[str, list[Curve]], more: dict[str, list[Curve]], path: Path) -> None:
    """Draw packed codes above coded ones, a column for each kind, and clients together below."""
    figure, grid = plt.subplots(3, 3, figsize=(21, 23), layout="constrained")
    for column, (kind, curves) in enumerate(kinds.items()):
        fixed = [c for c in curves if c.method.packed]
        free = [c for c in curves if not c.method.packed]
        draw_panel(grid[0, column], f"{kind}, packed", fixed, (0.9, 9, 5e-7, 100))
        draw_panel(grid[1, column], f"{kind}, entropy-coded", free, (0.05, 4, 3e-3, 10))
    for axes, (title, curves) in zip(grid[2], more.items(), strict=False):
        draw_panel(axes, title, curves, (0.05, 9, 1e-5, 10))
    for axes in (grid[0, 0], grid[1, 0], grid[2, 0], grid[2, 1]):
        axes.legend(fontsize=10, loc="lower left")
    grid[2, 2].axis("off")
    figure.savefig(path, dpi=70)


def study(recording: Recording, path: Path | None) -> None:
    samples = {kind: recording.samples(kind) for kind in KINDS}
    kinds = {kind: [s.values for s in found] for kind, found in samples.items()}
    panels: dict[str, list[Curve]] = {}
    for kind, tensors in kinds.items():
        curves = [measure(method, tensors) for method in methods()]
        console.print(
            packed_table(kind, [c for c in curves if c.method.packed]),
            rate_table(f"{kind}, coded", [c for c in curves if not c.method.packed], RATES),
        )
        panels[kind] = curves
    by_client = recording.all_clients()
    means = [measure_mean(method, by_client) for method in methods() if method.name in AVERAGED]
    mean_title = f"mean of {CLIENTS} updates"
    console.print(rate_table(mean_title, means, MEAN_RATES))
    sums = [
        measure_sum(recording, Method(name, coder, SUM_RATIOS, packed=False), feedback=feedback)
        for name, coder, feedback in SUMMED
    ]
    sum_title = f"sum of {min(SUMMED_ROUNDS, recording.rounds)} mean updates"
    console.print(rate_table(sum_title, sums, SUM_RATES))
    console.print(reach_table(kinds), prediction_table(samples), context_table(samples))
    if path is not None:
        picture(panels, {mean_title: means, sum_title: sums}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Error per bit of quantizers.")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the task's data")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--recording", type=Path, metavar="DIR", help="keep the recording, or use it if it is there"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the curves")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.recording or Path(temporary) / "recording"
        if not folder.exists():
            record(options.task, options.data, options.rounds, folder)
        study(Recording(folder / "payloads"), options.picture)


if __name__ == "__main__":
    main()
