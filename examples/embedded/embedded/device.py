"""The app: it watches a machine, and learns with others while nobody needs the device."""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path

import torch

from embedded.machine import readings, task, vibration
from fedaq.declines import Decline, Reason
from fedaq_client.client import Client
from fedaq_client.events import Declined, Event, Sent

READ_S = 0.05
# A machine that fails is louder, and one reading tells little.
LOUD, RECENT = 0.86, 5


class Device:
    """One device: its own loop, and a client beside it.

    Attributes
    ----------
    reads : int
        Windows that it has looked at.
    is_busy : bool
        Whether it is needed for something else now: it is whenever the machine fails.
    recent : tuple of bool
        Which of the last readings were loud.
    """

    def __init__(self, number: int, say: Callable[[str], object] = print) -> None:
        self.name = f"device-{number}"
        self.reads = 0
        self.is_busy = False
        self.recent: tuple[bool, ...] = ()
        self._number = number
        self._say = say
        self._rng = torch.Generator().manual_seed(100 + number)

    async def live(self, server: str, state: Path | None = None) -> str:
        """Watch the machine until the run is over; return the server's reason."""
        client = Client(
            task, server, data=readings(self._number, 300), name=self.name, state=state,
            ready=self.ready, on_event=self.on_event,
        )  # fmt: skip
        watching = asyncio.create_task(self._watch())
        try:
            return await client.arun()
        finally:
            watching.cancel()

    def ready(self) -> Decline | None:
        """Tell the client whether there is time for a round; it asks on a thread of its own."""
        return Decline(Reason.BUSY, "the machine fails") if self.is_busy else None

    def on_event(self, event: Event) -> None:
        """Show what the client does; called on the app's own loop."""
        if isinstance(event, Sent):
            self._say(
                f"{self.name}: round {event.round} of {event.rounds}, after {self.reads} reads"
            )
        elif isinstance(event, Declined):
            self._say(f"{self.name}: declined, {event.detail}")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(READ_S)
            self.reads += 1
            # The machine fails during 20 readings of every 60.
            fails = (self.reads // 20 + self._number) % 3 == 0
            loud = vibration(2 if fails else 1, self._number, self._rng).std() > LOUD
            self.recent = (*self.recent[1 - RECENT :], bool(loud))
            self.is_busy = sum(self.recent) > len(self.recent) / 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int, help="of the device")
    parser.add_argument("--server", default="127.0.0.1:50051")
    parser.add_argument("--state", type=Path, help="folder that outlives a restart")
    given = parser.parse_args()
    print(asyncio.run(Device(given.number).live(given.server, given.state)))
