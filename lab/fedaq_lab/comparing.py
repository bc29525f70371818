"""Comparisons from Python: several schemes and seeds, or runs that are there already."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from json import loads
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from fedaq.errors import UserError
from fedaq.settings import Options, Settings, flattened
from fedaq.tasks import AnyTask
from fedaq_lab.comparison_table import (
    COLUMNS,
    Line,
    figure_of,
    folder_of,
    summarize,
    table_rows,
)
from fedaq_lab.running import Engine, Where, run_line
from fedaq_server.records.record import round_in_json
from fedaq_server.records.result import Result, as_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


# Settings that do not make another line of a run.
_OF_NO_LINE = {"scheme", "seed", "network", "client", "device", "threads", "capture", "target"}


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What several runs add up to.

    Attributes
    ----------
    runs : mapping of str to tuple of Result
        For every line, those of its seeds.
    target : float
        In the task's metric; what it costs to reach it is compared.
    """

    runs: Mapping[str, tuple[Result, ...]]
    target: float

    @cached_property
    def summary(self) -> dict[str, Any]:
        """All numbers, as in the ``compare.json`` of `fedaq compare`."""
        lines = [Line(name, tuple(map(_document, runs))) for name, runs in self.runs.items()]
        return summarize(lines, self.target)

    @property
    def table(self) -> "DataFrame":
        """A row for every line, the cheapest to the target first; means over the seeds.

        Raises
        ------
        ModuleNotFoundError
            Without pandas.
        """
        from pandas import DataFrame

        numbers = (
            "rounds_to_target", "energy_j_to_target", "payload_bytes_to_target", "final_metric",
            "energy_j",
        )  # fmt: skip
        rows = [
            {"line": line["line"], "seeds": len(line["seeds"]), "reached": line["reached"]}
            | {name: None if line[name] is None else line[name]["mean"] for name in numbers}
            for line in self.summary["lines"]
        ]
        order = [row[0] for row in self._rows]
        named = {line["line"]: line["name"] for line in self.summary["lines"]}
        rows.sort(key=lambda row: order.index(named[row["line"]]))
        return DataFrame(rows).set_index("line")

    def plot(self, picture: Literal["metric", "bits", "energy"] = "metric") -> "Figure":
        """Return a figure: metric against joules, bits against rounds, or joules to the target."""
        return figure_of(self.summary, picture)

    @cached_property
    def _rows(self) -> list[tuple[str, ...]]:
        return table_rows(self.summary)

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(COLUMNS, *self._rows, strict=True)]
        written = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (COLUMNS, *self._rows)
        ]
        return "\n".join([f"to test {self._goal}; ± is the spread over seeds", *written])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the table and the picture of the metric against joules."""
        head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows
        )
        return (
            f"<div><b>to test {escape(self._goal)}</b><table><tr>{head}</tr>{rows}</table>"
            f"{as_svg(self.plot())}</div>"
        )

    @property
    def _goal(self) -> str:
        return f"{self.summary['metric']['name']} {self.target:g}"


def compare(
    lines: Sequence[str | Result],
    *,
    task: AnyTask | None = None,
    seeds: Sequence[int] = (1,),
    reach: float | None = None,
    out: Path | str | None = None,
    engine: Engine = "local",
    ray_address: str | None = None,
    ray_gpus: float = 1.0,
    progress: bool | None = None,
    **options: Unpack[Options],
) -> Comparison:
    """Compare schemes: same start, same data, energy to one target.

    Parameters
    ----------
    lines : sequence of str or Result
        Schemes with settings of their own, ``"fixed:fixed.uplink_bits=2"``, and runs that are
        there already; those that differ in their seed alone are one line.
    task, engine, ray_address, ray_gpus, progress, **options
        As of `fedaq.run`, for every scheme.
    seeds : sequence of int
    reach : float, optional
        Value of the task's metric; what it costs to reach it is compared. None: what the worst run
        reached at its best.
    out : Path or str, optional
        New folder with a folder for every run. None: only what is returned is kept.

    Raises
    ------
    UserError
        If there is nothing to compare, or a run is refused.
    """
    runs: dict[str, list[Result]] = {}
    on = Where(engine, ray_address, ray_gpus)
    names = _names([line for line in lines if isinstance(line, Result)])
    for line in lines:
        if isinstance(line, Result):
            runs.setdefault(next(names), []).append(line)
            continue
        if task is None:
            raise UserError(f"compare: which task is {line!r} to learn? task=")
        for seed in seeds:
            place = None if out is None else Path(out) / folder_of(line) / f"seed-{seed}"
            own: Options = {**options, "seed": seed}
            done = run_line(line, task, place, on, progress, own)
            runs.setdefault(line, []).append(done)
    if not runs:
        raise UserError("compare: nothing to compare; give schemes or results")
    everything = [result for group in runs.values() for result in group]
    metrics = {result.metric.name for result in everything}
    if len(metrics) > 1:
        raise UserError(f"compare: the runs have different metrics: {', '.join(sorted(metrics))}")
    return Comparison(
        {name: tuple(group) for name, group in runs.items()},
        _reached_by_all(everything) if reach is None else reach,
    )


def _reached_by_all(results: Sequence[Result]) -> float:
    bests = [result.summary["best_metric"] for result in results]
    found = [best for best in bests if best is not None and not isnan(best)]
    if not found:
        raise UserError("compare: no run has a metric that is finite; give reach=")
    return float(min(found) if results[0].metric.higher_is_better else max(found))


def _names(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line's name for each run: its scheme, and the settings in which the runs differ."""
    all_settings = [flattened(result.settings) for result in results]
    default = flattened(Settings().model_dump(mode="json"))
    keys = [
        key
        for key in default
        if key.partition(".")[0] not in _OF_NO_LINE
        and len({repr(settings.get(key)) for settings in all_settings}) > 1
    ]
    for result, settings in zip(results, all_settings, strict=True):
        own = [f"{key}={settings.get(key)}" for key in keys if settings.get(key) != default[key]]
        yield f"{result.record.scheme}:{','.join(own)}" if own else result.record.scheme


def _document(result: Result) -> dict[str, Any]:
    """Return what ``run.json`` has of a run, as far as a comparison reads it."""
    return {
        "seed": result.record.seed,
        "metric": asdict(result.metric),
        "summary": result.summary,
        "rounds": [loads(round_in_json(record)) for record in result.rounds],
    }
