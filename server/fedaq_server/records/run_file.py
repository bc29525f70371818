"""``run.json`` while a run goes on: when it is written, and from what."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any

from fedaq.files import replacing
from fedaq.metric import Metric
from fedaq_server.records.record import FORMAT_VERSION, RoundRecord, Totals, in_json, round_in_json

# The file is written whole. So it is written when it has grown by this share: then each round is
# written about a hundred times, however many there are. Where rounds are slow it is written when it
# is so old.
GROWTH, OLDEST_S = 0.01, 3600.0
COPIED_BYTES = 2**20


class RunFile:
    """``run.json`` of a run that goes on: valid at any time, and perhaps some rounds behind.

    A round is put into JSON once. From then on it lies in a file without a name, and is copied.

    Parameters
    ----------
    folder : Path
    facts : callable
        Returns what it says besides the rounds.
    records : callable
        Returns the committed rounds after the one of this number.
    metric : Metric
        Of the task.
    """

    def __init__(
        self,
        folder: Path,
        facts: Callable[[], Mapping[str, Any]],
        records: Callable[[int], Iterable[RoundRecord]],
        metric: Metric,
    ) -> None:
        self._folder, self._facts, self._records = folder, facts, records
        self._metric = metric
        self._lines: Any = None
        self._totals = self._begun()
        self._has, self._written_at = 0, -OLDEST_S

    def keep_up(self, rounds: int) -> None:
        """Write it after so many rounds, unless it has nearly all of them already."""
        is_old = time.monotonic() >= self._written_at + OLDEST_S
        if is_old or rounds >= self._has * (1 + GROWTH):
            self.write(finished=False)

    def write(self, *, finished: bool) -> None:
        """Write it with all rounds."""
        try:
            self._add_new()
            facts = {"version": FORMAT_VERSION, "finished": finished, **self._facts()}
            head = json.dumps(facts, indent=1, allow_nan=False).removesuffix("\n}")
            tail = f'\n ],\n "summary": {in_json(self._totals.summary())}\n}}\n'
            with replacing(self._folder / "run.json") as partial, partial.open("wb") as file:
                file.write(f'{head},\n "rounds": ['.encode())
                self._lines.seek(0)
                copyfileobj(self._lines, file, COPIED_BYTES)
                file.write(tail.encode())
        except BaseException:  # perhaps in the middle of a line
            self.close()
            raise
        self._has, self._written_at = self._totals.rounds, time.monotonic()

    def close(self) -> None:
        """Let go of the file without a name; what is written later begins with another."""
        if self._lines is not None:
            self._lines.close()
        self._lines, self._totals = None, self._begun()

    def _begun(self) -> Totals:
        return Totals(self._metric)

    def _add_new(self) -> None:
        if self._lines is None:
            self._lines = TemporaryFile(dir=self._folder)  # noqa: SIM115
        for record in self._records(self._totals.rounds):
            separator = ",\n  " if self._totals.rounds else "\n  "
            self._lines.write((separator + round_in_json(record)).encode())
            self._totals.add(record)
