"""What a person sees of a client: live progress on a terminal, one line per round elsewhere."""

from types import TracebackType

from fedaq.process.terminal import console, progress_of_rounds
from fedaq_client.session import Progress


class Display:
    """Shows how far the run is, as far as this client took part in it."""

    def __init__(self) -> None:
        self._progress = progress_of_rounds()
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

    def on_round(self, done: Progress) -> None:
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
