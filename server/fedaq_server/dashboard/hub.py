"""From the thread of the rounds to the viewers: the latest view of the run, and nothing else."""

import asyncio
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from fedaq_server.dashboard.live import View, changes, compact

# A line goes to a viewer at least so often, or a proxy on the way might give up.
QUIET_S = 15.0
# When a browser that lost the connection tries again.
RETRY_S = 2.0
# zlib's: what is written as gzip, and a compressor of 32 kB, for every viewer has one.
GZIP, WINDOW_BITS, MEMORY_LEVEL = 16, 12, 5


class Hub:
    """The latest view of a run, and who waits for the next.

    Nothing queues up for a viewer: each is told what has changed since what it was told last,
    so one that reads slowly misses what was in between.

    Attributes
    ----------
    viewers : int
        How many there are; the only part that another thread may read.
    """

    def __init__(self) -> None:
        self.viewers = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._view: View | None = None
        self._changed = asyncio.Event()
        # Most viewers saw the same before: what they are told is made once.
        self._told: dict[tuple[int, int], bytes] = {}

    def publish(self, view: View) -> None:
        """Show a view, from any thread."""
        assert self.loop is not None
        with suppress(RuntimeError):  # the page has died, and the rounds go on
            self.loop.call_soon_threadsafe(self._show, view)

    def _show(self, view: View) -> None:
        if self.viewers and view != self._view:
            self._view = view
            self._told.clear()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _tell(self, shown: View | None, view: View, first: int) -> bytes:
        key = id(shown), first
        if key not in self._told:
            message = changes(shown, view, first)
            self._told[key] = b"data: " + compact(message) + b"\n\n" if message else b""
        return self._told[key]

    async def events(self, first: int) -> AsyncGenerator[bytes, None]:
        """Yield what one viewer is sent, who sees clients from the place `first` on."""
        self.viewers += 1
        shown: View | None = None
        try:
            yield f"retry: {RETRY_S * 1000:.0f}\n\n".encode()
            while True:
                view, changed = self._view, self._changed
                if view is not None and view is not shown:
                    told = self._tell(shown, view, first)
                    shown = view
                    if told:
                        yield told
                    if view.status.phase in ("over", "stopped"):
                        return
                try:
                    async with asyncio.timeout(QUIET_S):
                        await changed.wait()
                except TimeoutError:
                    yield b":\n\n"
        finally:
            self.viewers -= 1
            if not self.viewers:
                self._view = None  # who comes next is not to see an old one first


async def squeezed(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Compress a stream; each part can be read as soon as it is there."""
    squeezer = zlib.compressobj(6, zlib.DEFLATED, GZIP + WINDOW_BITS, MEMORY_LEVEL)
    async with aclosing(parts):
        async for part in parts:
            yield squeezer.compress(part) + squeezer.flush(zlib.Z_SYNC_FLUSH)
    yield squeezer.flush()
