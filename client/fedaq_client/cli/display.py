"""What a person sees of a client: live progress on a terminal, one line per round elsewhere."""

from fedaq.process.terminal import RoundDisplay, si
from fedaq_client.session import Progress


class Display(RoundDisplay):
    """Shows how far the run is, as far as this client took part in it."""

    def __init__(self) -> None:
        super().__init__("waiting", "for the first round", None)

    def on_training(self, done: int, total: int) -> None:
        """Show how far the training of a round is; called on another thread."""
        self._progress.update(self._bar, description=f"training {done}/{total}")

    def on_transfer(self, down: bool, done_bytes: int, total_bytes: int) -> None:
        """Show how far a model or an update is on its way."""
        way = "receiving" if down else "sending"
        self._progress.update(
            self._bar, description=f"{way} {si(done_bytes, 'B')} of {si(total_bytes, 'B')}"
        )

    def on_round(self, done: Progress) -> None:
        """Show a finished round."""
        facts = (
            f"train loss {done.train_loss:.4f}, {done.downlink_bits:.2f} bits down, "
            f"{done.uplink_bits:.2f} up"
        )
        self._show(
            f"round {done.round}/{done.rounds}", facts, ": ", rounds=done.rounds, done=done.round
        )
