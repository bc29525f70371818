"""Runs that are over, or go on elsewhere: read from the ``run.json`` of their folders."""

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from stat import S_ISREG
from typing import Any

from fedaq.errors import printable
from fedaq.metric import Metric
from fedaq_server.dashboard.live import LONGEST, POINT_FIELDS, Sums, compact, flat, thinned

# How deep runs lie below the folder that is shown: those of a comparison are two folders below it.
DEPTH = 3
# Folders that are looked into, runs that are shown, and the largest file that is read of one:
# nothing else happens in the process, a round neither, while JSON is parsed.
MOST_FOLDERS, MOST_RUNS, MOST_BYTES = 5000, 500, 8 * 2**20

# What tells that a file has changed: its time in ns and its size.
Mark = tuple[int, int]
# A run's summary, and the rest of it; None for what is no run.
Read = tuple[dict[str, Any], dict[str, Any]] | None


class PastRuns:
    """The runs in a folder, by their paths below it; they are read one at a time.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Of each file the summary that was read when it had this mark.
        self._known: dict[Path, tuple[Mark, dict[str, Any] | None]] = {}
        self._last: tuple[Path, Mark, Read] | None = None
        self._lock = threading.Lock()

    def summaries(self) -> list[dict[str, Any]]:
        """Return what a list needs of each run, the latest first; others are left out."""
        with self._lock:
            return self._look()

    def _look(self) -> list[dict[str, Any]]:
        files = sorted(_files(self._folder), key=lambda file: -file[1][0])[:MOST_RUNS]
        before, now = self._known, {}
        for path, mark in files:
            known = before.get(path)
            if known is None or known[0] != mark:
                run = self._read(path, mark)
                known = mark, None if run is None else run[0]
            now[path] = known
        self._known = now
        return [summary for _, summary in now.values() if summary is not None]

    def run(self, name: str) -> dict[str, Any] | None:
        """Return one of them with its settings and points, None if there is no such run."""
        with self._lock:
            self._look()
            for path, (mark, summary) in self._known.items():
                if summary is not None and summary["id"] == name:
                    run = self._read(path, mark)
                    return None if run is None else {**run[0], **run[1]}
        return None

    def _read(self, path: Path, mark: Mark) -> Read:
        """Return what a file holds, which may be what was read last."""
        if self._last is None or self._last[:2] != (path, mark):
            self._last = path, mark, self._parsed(path)
        return self._last[2]

    def _parsed(self, path: Path) -> Read:
        place = path.parent.relative_to(self._folder)
        try:
            facts = path.stat()
            if facts.st_size > MOST_BYTES:
                return None
            document = json.loads(path.read_bytes())
            metric = Metric(**document.get("metric", {}))
            sums = Sums(metric.name)
            points = [sums.point(each) for each in document["rounds"]]
            settings = document["settings"]
            summary = {
                "id": printable(str(place) if place.parts else self._folder.resolve().name),
                "task": printable(str(document["task"]))[:LONGEST],
                "scheme": printable(str(document["scheme"]))[:LONGEST],
                "seed": int(document["seed"]),
                "clients": int(document["clients"]),
                "rounds": len(points),
                "of_rounds": int(settings["rounds"]),
                "finished": bool(document["finished"]),
                "metric": asdict(metric),
                "value": points[-1][POINT_FIELDS.index("metric")] if points else None,
                "energy_j": points[-1][POINT_FIELDS.index("energy_j")] if points else 0.0,
                "modified_at": int(facts.st_mtime),
            }
            rest = {"settings": flat(settings), "points": thinned(points)}
            compact([summary, rest])  # or one of them would keep the others off the list
            return summary, rest
        # A file that somebody else made may be anything.
        except (
            OSError, ValueError, LookupError, TypeError, RecursionError, AttributeError,
            ArithmeticError,
        ):  # fmt: skip
            return None


def _files(folder: Path) -> Iterator[tuple[Path, Mark]]:
    """Yield every ``run.json`` that is a file, and no link to one, with its mark."""
    level, looked_into = [folder], 0
    for depth in range(DEPTH + 1):
        below: list[Path] = []
        for place in level:
            looked_into += 1
            if looked_into > MOST_FOLDERS:
                return
            try:
                facts = (place / "run.json").lstat()
                if S_ISREG(facts.st_mode):
                    yield place / "run.json", (facts.st_mtime_ns, facts.st_size)
                    # Runs do not lie within runs, but the folder that is shown may be one.
                    if depth:
                        continue
            except OSError:
                pass
            below += _folders(place)
        level = below


def _folders(place: Path) -> list[Path]:
    try:
        return [
            entry
            for entry in sorted(place.iterdir())
            if not entry.name.startswith(".") and not entry.is_symlink() and entry.is_dir()
        ]
    except OSError:
        return []
