"""What a person sees of a client: live progress on a terminal, one line per round elsewhere."""

from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fedaq.terminal import console
from fedaq_client.session import Progress as RoundDone

# With the rest of a line it fits a terminal of 80 columns.
_BAR_COLUMNS = 10


class Display:
    """Shows how far the run is, as far as this client took part in it."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=_BAR_COLUMNS),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
            disable=console.quiet or not console.is_terminal,
        )
        self._bar = self._progress.add_task("waiting", total=None, facts="for the first round")

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def on_round(self, done: RoundDone) -> None:
        """Show a finished round."""
        name = f"round {done.round}/{done.rounds}"
        facts = (
            f"train loss {done.train_loss:.4f}, {done.downlink_bits:.2f} bits down, "
            f"{done.uplink_bits:.2f} up"
        )
        self._progress.update(
            self._bar, total=done.rounds, completed=done.round, description=name, facts=facts
        )
        if not console.is_terminal:
            console.print(f"{name}: {facts}")
