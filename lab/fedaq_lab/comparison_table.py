"""What several runs add up to: ``compare.json``, its table and its pictures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, nan
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from fedaq.metric import ACCURACY, Metric, written
from fedaq.process.terminal import console, si
from fedaq_server.records.picture import Picture
from fedaq_server.records.record import value_of

FORMAT_VERSION = 1
# Beyond this many lines, as a grid has them, pictures show only the best.
MOST_LINES = 10
COLUMNS = ("scheme", "rounds", "energy", "saved", "payload", "final", "in all")


@dataclass(frozen=True)
class Line:
    """One line of a comparison: a scheme, and its ``run.json`` for every seed."""

    name: str
    runs: tuple[Mapping[str, Any], ...]


def short(line: str) -> str:
    """Return a line's name for people: settings without their sections."""
    name, _, assignments = line.partition(":")
    values = dict(text.split("=", 1) for text in assignments.split(",") if text)
    if set(values) == {"fixed.uplink_bits", "fixed.downlink_bits"}:
        return f"fixed {values['fixed.uplink_bits']} up {values['fixed.downlink_bits']} down"
    parts = (f"{key.rpartition('.')[2]} {value}" for key, value in values.items())
    return ", ".join([name, *parts])


def folder_of(line: str) -> str:
    """Return the name of the folder that holds a line's runs."""
    return re.sub(r"[^\w.=-]+", "_", line)


def summarize(lines: Sequence[Line], target: float) -> dict[str, Any]:
    """Return the content of ``compare.json``.

    For every line and seed: rounds, joules and payload bytes to the target (None where it
    was not reached), and the final value of the task's metric (None where it is not finite);
    means and spreads over the seeds.
    """
    metric = Metric(**lines[0].runs[0].get("metric", {}))
    return {
        "version": FORMAT_VERSION,
        "metric": asdict(metric),
        "target": target,
        "lines": [_summary(line, metric, target) for line in lines],
    }


def _summary(line: Line, metric: Metric, target: float) -> dict[str, Any]:
    seeds = [_to_target(run, metric, target) for run in line.runs]
    reached = [seed for seed in seeds if seed["energy_j_to_target"] is not None]
    everyone = len(reached) == len(seeds)

    def over_seeds(key: str) -> dict[str, float] | None:
        if not everyone:
            return None
        values = [seed[key] for seed in seeds]
        return {"mean": mean(values), "spread": pstdev(values)}

    final = [seed["final_metric"] for seed in seeds]
    ended = None if None in final else {"mean": mean(final), "spread": pstdev(final)}
    total = [seed["energy_j"] for seed in seeds]
    return {
        "line": line.name,
        "name": short(line.name),
        "seeds": seeds,
        "reached": len(reached),
        "rounds_to_target": over_seeds("rounds_to_target"),
        "energy_j_to_target": over_seeds("energy_j_to_target"),
        "payload_bytes_to_target": over_seeds("payload_bytes_to_target"),
        "final_metric": ended,
        # By its older name, for who reads the file.
        **({"final_accuracy": ended} if metric.name == ACCURACY else {}),
        "energy_j": {"mean": mean(total), "spread": pstdev(total)},
    }


def _to_target(run: Mapping[str, Any], metric: Metric, target: float) -> dict[str, Any]:
    energy_j, payload = 0.0, 0
    result: dict[str, Any] = {
        "seed": run["seed"],
        "rounds_to_target": None,
        "energy_j_to_target": None,
        "payload_bytes_to_target": None,
        "final_metric": None,
        "energy_j": run["summary"]["energy_j"],
        "curve": [],
    }
    for record in run["rounds"]:
        energy_j += record["energy_j"]
        payload += record["uplink_payload_bytes"] + record["downlink_payload_bytes"]
        value = value_of(record, metric.name)
        result["final_metric"] = value
        result["curve"].append([energy_j, value, record["uplink_bits"], record["downlink_bits"]])
        reached = value is not None and metric.reaches(value, target)
        if reached and result["energy_j_to_target"] is None:
            result["rounds_to_target"] = record["round"]
            result["energy_j_to_target"] = energy_j
            result["payload_bytes_to_target"] = payload
    return result


def show(comparison: Mapping[str, Any]) -> None:
    """Print the table, the cheapest line to the target first."""
    to = f"{comparison['metric']['name']} {comparison['target']:g}"
    table = Table(title=f"to test {to}; ± is the spread over seeds")
    table.add_column(COLUMNS[0])
    for column in COLUMNS[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in table_rows(comparison):
        table.add_row(*row)
    console.print(table)
    for sentence in costs_of_privacy(comparison):
        console.print(sentence)


def costs_of_privacy(comparison: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each line with ``privacy`` settings beside the one without them."""
    energies = {
        _settings_of(line["line"]): line["energy_j_to_target"]["mean"]
        for line in comparison["lines"]
        if line["energy_j_to_target"]
    }
    sentences = []
    for line in comparison["lines"]:
        name, settings = _settings_of(line["line"])
        private = {setting for setting in settings if setting.startswith("privacy.")}
        with_it = energies.get((name, settings))
        without = energies.get((name, settings - private))
        if private and with_it is not None and without:
            sentences.append(
                f"{', '.join(sorted(private))} takes {with_it / without:.2f} times the energy of "
                f"the same without"
            )
    return sentences


def _settings_of(line: str) -> tuple[str, frozenset[str]]:
    name, _, assignments = line.partition(":")
    return name, frozenset(text for text in assignments.split(",") if text)


def table_rows(comparison: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of `COLUMNS`, the cheapest line to the target first."""
    lines, name = ranked(comparison), comparison["metric"]["name"]
    dearest = max(
        (line["energy_j_to_target"]["mean"] for line in lines if line["energy_j_to_target"]),
        default=None,
    )
    rows: list[tuple[str, ...]] = []
    for line in lines:
        energy = line["energy_j_to_target"]
        reached = f"{line['reached']} of {len(line['seeds'])}"
        row = (
            str(line["name"]),
            f"{line['rounds_to_target']['mean']:.1f}" if energy else reached,
            f"{si(energy['mean'], 'J')} ±{_relative(energy):.0%}" if energy else "",
            f"{1 - energy['mean'] / dearest:.1%}" if energy and dearest else "",
            si(line["payload_bytes_to_target"]["mean"], "B") if energy else "",
            _final(name, line["final_metric"]),
            si(line["energy_j"]["mean"], "J"),
        )
        rows.append(row)
    return rows


def _final(name: str, final: Mapping[str, float] | None) -> str:
    if final is None:
        return written(name, None)
    if name == ACCURACY:
        return f"{final['mean']:.2%} ±{100 * final['spread']:.2f}"
    return f"{written(name, final['mean'])} ±{final['spread']:.2g}"


def _relative(amount: Mapping[str, float]) -> float:
    """Return the spread as a share of the mean, which is 0 where bits cost nothing."""
    return amount["spread"] / amount["mean"] if amount["mean"] else 0.0


PICTURES = ("metric", "bits", "energy")


def draw(comparison: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw the metric against joules, bits against rounds, and energy to the target."""
    paths = []
    for picture in PICTURES:
        name = comparison["metric"]["name"] if picture == "metric" else picture
        path = folder / f"compare-{name}.png"
        figure_of(comparison, picture).savefig(path)
        paths.append(path)
    return paths


def figure_of(comparison: Mapping[str, Any], picture: str) -> Figure:
    """Return one of the `PICTURES` of a comparison."""
    draw_lines = {"metric": _draw_metric, "bits": _draw_bits, "energy": draw_energy}[picture]
    lines, name = ranked(comparison)[:MOST_LINES], comparison["metric"]["name"]
    figure = Picture(figsize=(8, 5), dpi=120)
    draw_lines(figure.subplots(), lines, name, comparison["target"])
    figure.tight_layout()
    return figure


def ranked(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the lines, the cheapest to the target first, then those that came nearest to it."""
    sign = -1 if comparison["metric"]["higher_is_better"] else 1

    def cost(line: Mapping[str, Any]) -> tuple[bool, float]:
        energy, final = line["energy_j_to_target"], line["final_metric"]
        if energy:
            return False, energy["mean"]
        return True, inf if final is None else sign * final["mean"]

    return sorted(comparison["lines"], key=cost)


def _draw_metric(axes: Axes, lines: Sequence[Mapping[str, Any]], name: str, target: float) -> None:
    for index, line in enumerate(lines):
        for seed in line["seeds"]:
            axes.plot(
                [point[0] for point in seed["curve"]],
                [nan if point[1] is None else point[1] for point in seed["curve"]],
                color=f"C{index}",
                linewidth=1,
                label=line["name"] if seed is line["seeds"][0] else None,
            )
    axes.axhline(target, color="gray", linestyle=":")
    if any(point[0] > 0 for line in lines for seed in line["seeds"] for point in seed["curve"]):
        axes.set_xscale("log")
    axes.set_xlabel("energy spent, J")
    axes.set_ylabel(f"test {name}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_bits(axes: Axes, lines: Sequence[Mapping[str, Any]], name: str, target: float) -> None:
    for index, line in enumerate(lines):
        curve = line["seeds"][0]["curve"]
        rounds = range(1, len(curve) + 1)
        axes.plot(rounds, [p[3] for p in curve], color=f"C{index}", label=line["name"])
        axes.plot(rounds, [p[2] for p in curve], color=f"C{index}", linestyle="--")
    axes.set_yscale("log", base=2)
    axes.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.set_xlabel("round")
    axes.set_ylabel("mean bits per value: downlink solid, uplink dashed")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw_energy(axes: Axes, lines: Sequence[Mapping[str, Any]], name: str, target: float) -> None:
    """Draw the energy that each line took to the target, if it reached it."""
    reached = [line for line in lines if line["energy_j_to_target"]][::-1]
    names = [line["name"] for line in reached]
    bars = axes.barh(
        names,
        [line["energy_j_to_target"]["mean"] for line in reached],
        xerr=[line["energy_j_to_target"]["spread"] for line in reached],
        color="#1f6feb",
        ecolor=mpl.rcParams["text.color"],
    )
    labels = [si(line["energy_j_to_target"]["mean"], "J") for line in reached]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.set_xlabel(f"energy to {name} {target:g}, J")
    axes.margins(x=0.15)
