"""How far a run is, shown to whoever looks: on a terminal, or in a notebook."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Protocol

from fedaq.metric import Metric
from fedaq.process.terminal import console
from fedaq.settings import Settings
from fedaq_server.cli.display import Display, facts_of
from fedaq_server.records.record import RoundRecord

_OFTEN_S = 0.1


class Shown(Protocol):
    """Who is told of a run."""

    def on_page(self, address: str) -> None:
        """Say where the page to watch is."""

    def on_round(self, record: RoundRecord) -> None:
        """Show a committed round."""


@contextmanager
def shown_by(settings: Settings, metric: Metric, progress: bool | None) -> Iterator[Shown]:
    """Show the rounds of the block, or nothing; None: only where somebody looks."""
    in_notebook = _in_notebook()
    if progress is None:
        progress = in_notebook or console.is_terminal
    if not progress:
        yield _Silent()
    elif in_notebook:
        yield _Cell(settings, metric)
    else:
        with Display(settings, 0, 0.0) as display:
            display.metric = metric
            yield display


def _in_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")  # where it was not imported there is no notebook
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class _Silent:
    def on_page(self, address: str) -> None:
        """Say nothing."""

    def on_round(self, record: RoundRecord) -> None:
        """Say nothing."""


class _Cell:
    """A line under a notebook's cell, written anew as rounds are over."""

    def __init__(self, settings: Settings, metric: Metric) -> None:
        from IPython import display

        shown: Any = display
        self._settings, self._metric = settings, metric
        self._energy_j, self._shown_at = 0.0, 0.0
        self._html: Any = shown.HTML
        self._display: Any = shown.display
        self._cell: Any = self._display(self._line(0, "starting"), display_id=True)

    def on_page(self, address: str) -> None:
        """Show a link to the page to watch."""
        shown = escape(address)
        self._display(self._html(f"<a href='{shown}' target='_blank'>{shown}</a>"))

    def on_round(self, record: RoundRecord) -> None:
        """Show a committed round, unless the last one was shown just now."""
        self._energy_j += record.energy_j
        is_last = record.round == self._settings.rounds
        if is_last or time.monotonic() >= self._shown_at + _OFTEN_S:
            self._shown_at = time.monotonic()
            facts = facts_of(record, self._metric, self._energy_j)
            self._cell.update(self._line(record.round, facts))

    def _line(self, done: int, facts: str) -> Any:
        rounds = self._settings.rounds
        return self._html(
            f"<progress value='{done}' max='{rounds}'></progress> "
            f"round {done}/{rounds} <code>{escape(facts)}</code>"
        )
