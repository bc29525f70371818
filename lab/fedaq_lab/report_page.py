"""Runs and comparisons on one HTML page, with the same pictures as files beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, Field, FiniteFloat, model_validator

from fedaq import __version__
from fedaq.errors import UserError, printable, why
from fedaq.files import replacing, write
from fedaq.metric import ACCURACY, LOSS, Metric, written
from fedaq.process.terminal import si
from fedaq.settings import Settings, flattened
from fedaq_lab import comparison_table
from fedaq_lab.report_pictures import Line, Picture, drawn
from fedaq_server.cli.display import budget_lines, privacy_lines
from fedaq_server.records.record import summarize
from fedaq_server.records.saved import FILE, SavedRun, read_run

COMPARISON = "compare.json"
# Of the rounds that lacked clients, so many are named.
_NAMED_ROUNDS = 12


@dataclass(frozen=True)
class Entry:
    """One run of the report.

    Attributes
    ----------
    name : str
        Its folder's, or that of the comparison's line and its seed.
    line : str
        What it has in common with the runs that are drawn in the same colour.
    """

    name: str
    line: str
    run: SavedRun


class _Amount(BaseModel):
    mean: FiniteFloat
    spread: FiniteFloat


class _Seed(BaseModel):
    seed: int


class _Compared(BaseModel):
    line: str
    name: str
    seeds: list[_Seed] = Field(min_length=1)
    reached: int
    rounds_to_target: _Amount | None
    energy_j_to_target: _Amount | None
    payload_bytes_to_target: _Amount | None
    final_metric: _Amount | None
    energy_j: _Amount

    @model_validator(mode="before")
    @classmethod
    def _by_its_older_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and "final_metric" not in values:
            return {**values, "final_metric": values.get("final_accuracy")}
        return values


class _Comparison(BaseModel):
    """Of ``compare.json``, what a report shows."""

    metric: Metric = Field(default_factory=Metric)
    target: FiniteFloat
    lines: list[_Compared] = Field(min_length=1)


@dataclass(frozen=True)
class Contents:
    """What a report is made of."""

    entries: tuple[Entry, ...]
    comparisons: tuple[tuple[str, Mapping[str, Any]], ...]

    @property
    def lines(self) -> list[Line]:
        """The runs by the colour in which they are drawn, in their order."""
        names = dict.fromkeys(entry.line for entry in self.entries)
        return [Line(name, tuple(e.run for e in self.entries if e.line == name)) for name in names]


def write_report(folders: Sequence[Path], out: Path) -> tuple[Path, list[Path]]:
    """Write ``report.html`` and its pictures; return where they are.

    Raises
    ------
    UserError
        If a folder has neither a run nor a comparison, or nothing can be written.
    """
    contents = gather(folders)
    pictures = drawn(contents.lines)
    for number, (name, comparison) in enumerate(contents.comparisons, 1):
        pictures += _target_picture(f"-{number}" if name else "", name, comparison)
    page = render(contents, pictures)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / "report.html") as partial:
            partial.write_text(page, encoding="utf-8")
        paths = [out / f"{picture.name}.png" for picture in pictures]
        for path, picture in zip(paths, pictures, strict=True):
            write(path, picture.png)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {why(error)}") from None
    return out / "report.html", paths


def _target_picture(suffix: str, name: str, comparison: Mapping[str, Any]) -> list[Picture]:
    """Return the energy to the target, if any line reached it."""
    if not any(line["energy_j_to_target"] for line in comparison["lines"]):
        return []
    return [
        Picture.of(
            f"energy-to-target{suffix}",
            f"Energy to {_target(comparison)}" + (f", {name}" if name else ""),
            lambda axes: comparison_table.draw_energy(
                axes,
                comparison_table.ranked(comparison)[: comparison_table.MOST_LINES],
                comparison["metric"]["name"],
                comparison["target"],
            ),
        )
    ]


def _target(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['metric']['name']} {comparison['target']:g}"


# ---- What is there -------------------------------------------------------------


def gather(folders: Sequence[Path]) -> Contents:
    """Read the runs and comparisons of some folders.

    Raises
    ------
    UserError
        If one has neither.
    """
    entries: list[Entry] = []
    comparisons = []
    names = _names(folders)
    for folder, name in zip(folders, names, strict=True):
        if (folder / FILE).exists():
            entries.append(Entry(name, name, read_run(folder)))
        elif (folder / COMPARISON).exists():
            comparison = _read_comparison(folder)
            several = sum((other / COMPARISON).exists() for other in folders) > 1
            prefix = f"{name}: " if several else ""
            entries += _compared(folder, comparison, prefix)
            comparisons.append((name if several else "", comparison))
        else:
            raise UserError(
                f"{folder}: holds neither a run ({FILE}) nor a comparison ({COMPARISON})"
            )
    return Contents(tuple(entries), tuple(comparisons))


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' own names, and the paths of those that share one."""
    short = [folder.resolve().name for folder in folders]
    pairs = zip(folders, short, strict=True)
    return [printable(name if short.count(name) == 1 else str(folder)) for folder, name in pairs]


def _read_comparison(folder: Path) -> Mapping[str, Any]:
    path = folder / COMPARISON
    try:
        comparison = _Comparison.model_validate_json(path.read_bytes()).model_dump()
        for line in comparison["lines"]:
            line["name"] = printable(line["name"])
        comparison_table.table_rows(comparison)
    except (OSError, ValueError, TypeError, ArithmeticError):
        raise UserError(f"{path}: not the record of a comparison") from None
    return comparison


def _compared(folder: Path, comparison: Mapping[str, Any], prefix: str) -> Iterator[Entry]:
    for line in comparison["lines"]:
        place = folder / comparison_table.folder_of(line["line"])
        for seed in line["seeds"]:
            run = read_run(place / f"seed-{seed['seed']}")
            name = printable(f"{prefix}{line['name']}")
            yield Entry(f"{name}, seed {run.seed}", name, run)


# ---- The page ------------------------------------------------------------------


def render(contents: Contents, pictures: Sequence[Picture]) -> str:
    """Return the page; whatever comes from files is escaped."""
    environment = Environment(
        autoescape=True, finalize=_clear, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.from_string((files(__package__) / "report.html").read_text("utf-8"))
    entries = contents.entries
    flat = {entry.name: flattened(entry.run.settings) for entry in entries}
    different = _different(flat)
    return template.render(
        version=__version__,
        title=_title(entries),
        entries=entries,
        rows=_rows(entries),
        metrics=[*_metrics(entries), *map(_of_clients, _client_metrics(entries))],
        trouble=[(entry, _trouble(entry.run)) for entry in entries if _trouble(entry.run)],
        columns=comparison_table.COLUMNS,
        comparisons=[
            (name, _target(comparison), comparison_table.table_rows(comparison))
            for name, comparison in contents.comparisons
        ],
        pictures=pictures,
        different=different,
        flat=flat,
        shown=_shown,
        settings=_settings(flat, different),
        versions=_versions(entries),
        lacking=[(entry, _lacking(entry.run)) for entry in entries if _lacking(entry.run)],
        budgets=[(entry, lines) for entry in entries if (lines := _budgets(entry.run))],
        shut_out=[(entry, entry.run.shut_out) for entry in entries if entry.run.shut_out],
    )


def _budgets(run: SavedRun) -> list[str]:
    return [*budget_lines(run.budgets), *privacy_lines(run.privacy)]


def _clear(value: object) -> object:
    return value if isinstance(value, Markup) else printable(str(value))


def _title(entries: Sequence[Entry]) -> str:
    tasks = dict.fromkeys(entry.run.task for entry in entries)
    count = "one run" if len(entries) == 1 else f"{len(entries)} runs"
    return f"{', '.join(tasks)}: {count}"


def _rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Return the cells of the runs' table, without the columns of which nothing is known."""
    rows = [_row(entry, _metrics(entries), _client_metrics(entries)) for entry in entries]
    empty = {key for key in rows[0] if all(row[key] == "-" for row in rows)}
    return [{key: cell for key, cell in row.items() if key not in empty} for row in rows]


def _metrics(entries: Sequence[Entry]) -> list[str]:
    """Return the names of what the tests gave, those that the tasks are about first."""
    about = [entry.run.metric.name for entry in entries]
    others = (name for e in entries for record in e.run.rounds[-1:] for name in record.metrics)
    return list(dict.fromkeys([*about, *others]))


def _client_metrics(entries: Sequence[Entry]) -> list[str]:
    """Return the names of what clients' own tests gave."""
    given = (name for e in entries for each in e.run.rounds[-1:] for name in each.client_metrics)
    return list(dict.fromkeys(given))


def _of_clients(name: str) -> str:
    return f"clients' {name}"


def _row(entry: Entry, metrics: Sequence[str], of_clients: Sequence[str]) -> dict[str, str]:
    run, rounds = entry.run, entry.run.rounds
    totals = summarize(rounds, run.metric)
    wire = totals["uplink_wire_bytes"], totals["downlink_wire_bytes"]
    return {
        "run": entry.name,
        "scheme": run.scheme,
        "clients": str(run.clients),
        "rounds": str(len(rounds)) if run.finished else f"{len(rounds)} of {_planned(run)}",
        **{name: _final(run, name) for name in metrics},
        **{_of_clients(name): _clients_final(run, name) for name in of_clients},
        "best": _shown_as(run.metric.name, totals["best_metric"]),
        "energy": si(totals["energy_j"], "J"),
        "training": si(totals["training_j"], "J") if "training_j" in totals else "-",
        "bits up": f"{totals['mean_uplink_bits']:.2f}",
        "bits down": f"{totals['mean_downlink_bits']:.2f}",
        "payload up": si(totals["uplink_payload_bytes"], "B"),
        "payload down": si(totals["downlink_payload_bytes"], "B"),
        "on the wire": "-" if None in wire else si(sum(wire), "B"),
        "time": si(totals["seconds"], "s"),
    }


def _planned(run: SavedRun) -> str:
    return str(run.settings.get("rounds", "?"))


def _final(run: SavedRun, name: str) -> str:
    """Return a metric after the last round, a dash if the task does not have it."""
    if not run.rounds or name not in (LOSS, run.metric.name, *run.rounds[-1].metrics):
        return "-"
    return _shown_as(name, run.rounds[-1].value(name))


def _clients_final(run: SavedRun, name: str) -> str:
    """Return the mean of clients' own tests in the last round, a dash if they have none."""
    given = run.rounds[-1].client_metrics if run.rounds else {}
    return _shown_as(name, given.get(name))


def _shown_as(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if name == ACCURACY and isfinite(value) else written(name, value)


def _different(flat: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the settings that are not the same in all runs."""
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    return [
        key for key in keys
        if len({repr(settings.get(key)) for settings in flat.values()}) > 1
    ]  # fmt: skip


def _settings(
    flat: Mapping[str, Mapping[str, Any]], different: Sequence[str]
) -> list[tuple[str, str, bool]]:
    """Return (name, value, whether it is no default) of the settings that all runs share."""
    defaults = flattened(Settings().model_dump(mode="json"))
    first = next(iter(flat.values()))
    return [
        (key, _shown(value), key not in defaults or defaults[key] != value)
        for key, value in first.items()
        if key not in different
    ]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value is None else str(value)


def _versions(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return each combination of versions, and the runs that were made with it."""
    made: dict[str, list[str]] = {}
    for entry in entries:
        parts = {"fedaq": entry.run.fedaq, **entry.run.versions}
        made.setdefault(", ".join(f"{k} {v}" for k, v in parts.items()), []).append(entry.name)
    everyone = len(made) == 1
    return [(text, "" if everyone else ", ".join(names)) for text, names in made.items()]


def _trouble(run: SavedRun) -> str:
    """Say in how many rounds the test was not finite, and what was not in the last of them."""
    bad = [record for record in run.rounds if record.trouble(run.metric)]
    if not bad:
        return ""
    last = bad[-1]
    return (
        f"not finite in {len(bad)} of {len(run.rounds)} rounds; in round {last.round} "
        f"{last.trouble(run.metric)}"
    )


def _lacking(run: SavedRun) -> str:
    """Say in which rounds updates were missing."""
    lacking = [record for record in run.rounds if record.left_out]
    if not lacking:
        return ""
    named = ", ".join(
        f"{record.round} ({record.clients} of {record.clients + record.left_out})"
        for record in lacking[:_NAMED_ROUNDS]
    )
    more = len(lacking) - _NAMED_ROUNDS
    return named + (f" and {more} more" if more > 0 else "")
