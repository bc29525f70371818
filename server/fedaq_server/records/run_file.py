"""When ``run.json`` is written while a run goes on."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fedaq_server.records.record import RoundRecord, write_run

# It is written whole, so the more rounds it has, the longer that takes; all the writing together
# takes at most about this share of the time.
LARGEST_SHARE = 0.01


class RunFile:
    """``run.json`` of a run that goes on: valid at any time, and perhaps some rounds behind.

    Parameters
    ----------
    folder : Path
    facts : callable
        Returns what it says besides the rounds.
    records : callable
        Returns the committed rounds.
    """

    def __init__(
        self,
        folder: Path,
        facts: Callable[[], Mapping[str, Any]],
        records: Callable[[], Iterable[RoundRecord]],
    ) -> None:
        self._folder, self._facts, self._records = folder, facts, records
        self._due_at = 0.0

    def keep_up(self) -> None:
        """Write it after a round, unless it was written so lately that this would take too much."""
        if time.monotonic() >= self._due_at:
            self.write(finished=False)

    def write(self, *, finished: bool) -> None:
        """Write it with all rounds."""
        began = time.monotonic()
        write_run(self._folder, {"finished": finished, **self._facts()}, self._records())
        ended = time.monotonic()
        self._due_at = ended + (ended - began) / LARGEST_SHARE
