"""Rounds for TensorBoard and MLflow, read from what a run has saved.

A process of its own reads ``run.json``, so no store that is slow or gone can hold up a server,
runs of any age can be brought there, and a run that was resumed shows no round twice.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from itertools import accumulate
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from fedaq.errors import FedaqError, UserError
from fedaq.process.terminal import console, foreign
from fedaq.settings import flattened
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.saved import FILE, SavedRun, read_run

POLL_S = 1.0
EVENTS, SUFFIX = "events.out.tfevents.*", ".fedaq"
# MLflow takes a thousand metrics at a time, and so many parameters.
ROUNDS_AT_A_TIME, PARAMETERS_AT_A_TIME, LONGEST_PARAMETER = 50, 100, 6000
TAG = "fedaq.run"

Mark = tuple[int, int, int] | None


class Tracker(Protocol):
    """Where the rounds of one run are brought to."""

    def update(self, run: SavedRun) -> None:
        """Bring what is new there."""


def track_runs(
    folders: Sequence[Path], tensorboard: Path | None, mlflow: str | None, *, follow: bool
) -> None:
    """Bring runs to TensorBoard and MLflow.

    Raises
    ------
    UserError
        If a folder has no run, or two have the same.
    FedaqError
        If MLflow does not take them.
    """
    make: list[Callable[[Path, SavedRun], Tracker]] = []
    names = _names(folders)
    if tensorboard is not None:
        import_module("tensorboard")  # torch would hide that it is missing
        make.append(lambda folder, run: EventFiles(tensorboard, names[folder], folder, run))
    if mlflow is not None:
        store = open_mlflow(mlflow)
        make.append(lambda folder, _: MlflowRun(store, names[folder], folder))
    grown = {folder: read_run(folder) for folder in folders}
    _refuse_copies(grown)
    trackers = {folder: [new(folder, run) for new in make] for folder, run in grown.items()}
    going: dict[Path, SavedRun] = {}
    marks: dict[Path, Mark] = {}
    while True:
        for folder, run in grown.items():
            for tracker in trackers[folder]:
                tracker.update(run)
            console.print(f"{foreign(folder)}: {len(run.rounds)} rounds")
        going = {folder: run for folder, run in {**going, **grown}.items() if not run.finished}
        if not (going and follow):
            return
        grown = _grown(going, marks)


def _refuse_copies(runs: Mapping[Path, SavedRun]) -> None:
    known: dict[str, Path] = {}
    for folder, run in runs.items():
        first = known.setdefault(_identity(run, folder), folder)
        if first != folder:
            raise UserError(f"{folder}: the same run as {first}; name one of them")


def _grown(going: Mapping[Path, SavedRun], marks: dict[Path, Mark]) -> dict[Path, SavedRun]:
    """Return the runs that have a new round or are over, as soon as there is one.

    A file that is as it was when it was read is not read again.
    """
    while True:
        time.sleep(POLL_S)
        grown = {}
        for folder, known in going.items():
            mark = _mark(folder)
            if mark is not None and mark == marks.get(folder):
                continue
            run = read_run(folder)
            marks[folder] = mark
            if run.finished or len(run.rounds) != len(known.rounds):
                grown[folder] = run
        if grown:
            return grown


def _mark(folder: Path) -> Mark:
    """Return what tells that the file of a run has changed; None if there is none."""
    try:
        facts = (folder / FILE).stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Return the shortest end of each folder's path that no other folder's path has."""
    parts = {folder: folder.resolve().parts for folder in folders}
    whole = set(parts.values())
    names = {}
    for folder, mine in parts.items():
        length = 1
        while length < len(mine) - 1 and sum(mine[-length:] == o[-length:] for o in whole) > 1:
            length += 1
        names[folder] = "/".join(mine[-length:])
    return names


def metrics(rounds: Sequence[RoundRecord]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (round, values by name): those of `RoundRecord.flat` and the energy so far."""
    spent_j = accumulate(record.energy_j for record in rounds)
    for record, total_j in zip(rounds, spent_j, strict=True):
        values = record.flat()
        del values["round"]
        values["energy_total_j"] = total_j
        yield (
            record.round,
            {n: float(v) for n, v in values.items() if v is not None and isfinite(v)},
        )


def _times(folder: Path, rounds: Sequence[RoundRecord]) -> list[float]:
    """Return when each round ended, in seconds of the epoch: the last, when it was saved."""
    ends = list(accumulate(record.seconds for record in rounds))
    saved = (folder / FILE).stat().st_mtime
    return [saved - (ends[-1] - end) for end in ends]


class EventFiles:
    """Event files of one run for TensorBoard.

    They are written anew from the first round, which takes milliseconds and leaves no round
    twice. Their names end in what tells the run from all others.
    """

    def __init__(self, logs: Path, name: str, folder: Path, run: SavedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        key = _digest(_identity(run, folder))
        place = _place(logs, name, key)
        for old in place.glob(f"{EVENTS}.{key}{SUFFIX}"):
            old.unlink()
        self._run_folder = folder
        self._writer = SummaryWriter(str(place), filename_suffix=f".{key}{SUFFIX}")
        self._last = 0

    def update(self, run: SavedRun) -> None:
        """Bring what is new there."""
        times = _times(self._run_folder, run.rounds)
        for (number, values), at in zip(metrics(run.rounds), times, strict=True):
            if number > self._last:
                for name, value in values.items():
                    self._writer.add_scalar(f"fedaq/{name}", value, number, at)
                self._last = number
        self._writer.flush()


def _place(logs: Path, name: str, key: str) -> Path:
    """Return where a run's event files are, or may go: TensorBoard mixes what shares a folder."""
    known = min(logs.rglob(f"{EVENTS}.{key}{SUFFIX}"), default=None)
    if known is not None:
        return known.parent
    taken = any((logs / name).glob(f"{EVENTS}{SUFFIX}"))
    return logs / (f"{name}-{key}" if taken else name)


def open_mlflow(uri: str) -> Any:
    """Return a client of an MLflow store or server.

    Raises
    ------
    FedaqError
        If there is none.
    """
    # Whoever counts every bit does not send usage statistics unasked.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    client = _asked(uri, import_module("mlflow").MlflowClient, tracking_uri=uri)
    _asked(uri, client.search_experiments)
    return client


def _asked(uri: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except Exception as error:  # those of MLflow, of a database, of a connection
        said = str(error).strip().partition("\n")[0]
        raise FedaqError(f"MLflow at {uri}: {said}") from error


class MlflowRun:
    """One run in MLflow: found again by the identity of the run, else begun."""

    def __init__(self, client: Any, name: str, folder: Path) -> None:
        self._client, self._name, self._folder = client, name, folder
        self._uri = client.tracking_uri
        self._id = ""
        self._last = 0

    def update(self, run: SavedRun) -> None:
        """Bring what is new there."""
        if not self._id:
            self._id = self._find(run) or self._begin(run)
        entities = import_module("mlflow.entities")
        new = [
            entities.Metric(name, value, round(1000 * at), number)
            for (number, values), at in zip(
                metrics(run.rounds), _times(self._folder, run.rounds), strict=True
            )
            if number > self._last
            for name, value in values.items()
        ]
        size = ROUNDS_AT_A_TIME * len(fields(RoundRecord))
        for start in range(0, len(new), size):
            self._ask("log_batch", self._id, metrics=new[start : start + size])
        self._last = len(run.rounds)
        if run.finished:
            self._ask("set_terminated", self._id, "FINISHED")

    def _find(self, run: SavedRun) -> str | None:
        experiment = self._ask("get_experiment_by_name", run.task)
        if experiment is None:
            return None
        identity = f"tags.`{TAG}` = '{_identity(run, self._folder)}'"
        found = self._ask("search_runs", [experiment.experiment_id], filter_string=identity)
        if not found:
            return None
        known = str(found[0].info.run_id)
        history = self._ask("get_metric_history", known, "energy_total_j")
        self._last = max((metric.step for metric in history), default=0)
        return known

    def _begin(self, run: SavedRun) -> str:
        experiment = self._ask("get_experiment_by_name", run.task)
        number = experiment.experiment_id if experiment else None
        if number is None:
            number = self._ask("create_experiment", run.task)
        begun = self._ask(
            "create_run",
            number,
            run_name=self._name,
            tags={TAG: _identity(run, self._folder), "fedaq.version": run.fedaq},
        )
        entities = import_module("mlflow.entities")
        parameters = [
            entities.Param(name, str(value)[:LONGEST_PARAMETER])
            for name, value in flattened(run.settings).items()
        ]
        for start in range(0, len(parameters), PARAMETERS_AT_A_TIME):
            some = parameters[start : start + PARAMETERS_AT_A_TIME]
            self._ask("log_batch", begun.info.run_id, params=some)
        return str(begun.info.run_id)

    def _ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        return _asked(self._uri, getattr(self._client, name), *arguments, **named)


def _identity(run: SavedRun, folder: Path) -> str:
    """Return what tells a run from all others; older ones are known by where they lie."""
    return run.id or _digest(str(folder.resolve()))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()
