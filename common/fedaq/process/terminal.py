"""The one console that people read, and how quantities are written on it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape

from fedaq.errors import printable

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

# With the rest of a line it fits a terminal of 80 columns.
_BAR_COLUMNS = 10

console = Console(highlight=False, soft_wrap=True)


class RoundDisplay:
    """How far a run is: a bar on a terminal, a line for each step elsewhere.

    Parameters
    ----------
    step, facts : str
        What is done now, and what there is to say of it.
    rounds : int, optional
        None before their number is known.
    done : int
    """

    def __init__(self, step: str, facts: str, rounds: int | None, done: int = 0) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=_BAR_COLUMNS),
            TextColumn("{task.fields[facts]}"),
            *self._columns(),
            TimeRemainingColumn(),
            console=console,
            disable=console.quiet or not console.is_terminal,
        )
        self._bar = self._progress.add_task(step, total=rounds, completed=done, facts=facts)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _columns(self) -> "Sequence[ProgressColumn]":
        """Return more columns that a display has."""
        return ()

    def _show(
        self,
        step: str,
        facts: str,
        between: str = "  ",
        rounds: int | None = None,
        done: int | None = None,
    ) -> None:
        """Show a step; `rounds` and `done` stay as they were where they are left out."""
        self._progress.update(
            self._bar, total=rounds, completed=done, description=step, facts=facts
        )
        if not console.is_terminal:
            console.print(f"{step}{between}{facts}")


def starting() -> AbstractContextManager[object]:
    """Show that something happens, while torch is imported, to whoever looks at a terminal."""
    return console.status("starting") if console.is_terminal else nullcontext()


def foreign(text: object) -> str:
    """Return what came from a peer or a file so that it steers neither console nor terminal."""
    return escape(printable(str(text)))


def si(value: float, unit: str) -> str:
    """Format a quantity with an SI prefix, for example ``3.21 mJ``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "u")):
        if abs(value) >= 0.9995 * factor:  # less would not be rounded up to it
            return f"{value / factor:#.3g} {prefix}{unit}".replace(". ", " ")
    return f"{value / 1e-9:.3g} n{unit}" if value else f"0 {unit}"
