"""Runs that are over, or go on elsewhere: read from the ``run.json`` of their folders."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedaq_server.dashboard.live import LONGEST, POINT_FIELDS, Sums, flat, thinned

# How deep runs lie below the folder that is shown: those of a comparison are two folders below it.
DEPTH = 3
# Folders that are looked into, runs that are shown, and the largest file that is read of one.
MOST_FOLDERS, MOST_RUNS, MOST_BYTES = 5000, 500, 64 * 2**20


class PastRuns:
    """The runs in a folder, by their paths below it.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Of each file, what tells that it has changed, and the summary that was read then.
        self._known: dict[Path, tuple[tuple[int, int], dict[str, Any] | None]] = {}

    def summaries(self) -> list[dict[str, Any]]:
        """Return what a list needs of each run, the latest first; others are left out."""
        files = sorted(_files(self._folder), key=lambda file: -file[1][0])[:MOST_RUNS]
        before, now = self._known, {}
        for path, mark in files:
            known = before.get(path)
            if known is None or known[0] != mark:
                run = self._read(path)
                known = mark, None if run is None else run[0]
            now[path] = known
        self._known = now
        return [summary for _, summary in now.values() if summary is not None]

    def run(self, name: str) -> dict[str, Any] | None:
        """Return one of them with its settings and points, None if there is no such run."""
        self.summaries()
        for path, (_, summary) in self._known.items():
            if summary is not None and summary["id"] == name:
                run = self._read(path)
                return None if run is None else {**run[0], **run[1]}
        return None

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return a run's summary, and the rest of it."""
        place = path.parent.relative_to(self._folder)
        try:
            facts = path.stat()
            if facts.st_size > MOST_BYTES:
                return None
            document = json.loads(path.read_bytes())
            sums = Sums()
            points = [sums.point(each) for each in document["rounds"]]
            settings = document["settings"]
            summary = {
                "id": str(place) if place.parts else self._folder.resolve().name,
                "task": str(document["task"])[:LONGEST],
                "scheme": str(document["scheme"])[:LONGEST],
                "seed": int(document["seed"]),
                "clients": int(document["clients"]),
                "rounds": len(points),
                "of_rounds": int(settings["rounds"]),
                "finished": bool(document["finished"]),
                "accuracy": points[-1][POINT_FIELDS.index("accuracy")] if points else None,
                "energy_j": points[-1][POINT_FIELDS.index("energy_j")] if points else 0.0,
                "modified_at": int(facts.st_mtime),
            }
            return summary, {"settings": flat(settings), "points": thinned(points)}
        # A file that somebody else made may be anything.
        except (OSError, ValueError, LookupError, TypeError, RecursionError, AttributeError):
            return None


def _files(folder: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Yield every ``run.json`` with what tells that it has changed: its time and its size."""
    level, looked_into = [folder], 0
    for depth in range(DEPTH + 1):
        below: list[Path] = []
        for place in level:
            looked_into += 1
            if looked_into > MOST_FOLDERS:
                return
            try:
                facts = (place / "run.json").stat()
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
