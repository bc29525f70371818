"""How long the server waits for a client of which nothing comes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from fedaq.codec.chunks import Chunk
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.transport.client import Stream

# Less than this may be HTTP/2 alone, which goes on when the client hangs.
PROGRESS_BYTES = 1024
LOOKS = 4

Read = Callable[[], Awaitable[pb.ClientMessage | Chunk | None]]


@asynccontextmanager
async def patient(stream: Stream, patience_s: float) -> AsyncIterator[Read]:
    """Give the block a `read` for the stream that does not wait in vain.

    A message that takes longer, on a slow link, is waited for as long as bytes of it arrive.

    Raises
    ------
    TimeoutError
        In the block, if nothing has come for `patience_s` seconds. To notice it may take three
        quarters more, for nobody looks before half of the first are over.
    """
    reading_since: float | None = None

    async def read() -> pb.ClientMessage | Chunk | None:
        nonlocal reading_since
        reading_since = time.monotonic()
        try:
            return await stream.read()
        finally:
            reading_since = None

    async def watch() -> None:
        received, moved_at = 0, 0.0
        while True:
            await asyncio.sleep(patience_s / LOOKS)
            now = time.monotonic()
            # What has just been heard of need not be looked up among all sockets.
            if reading_since is None or now - reading_since < patience_s / 2:
                received = 0
                continue
            arrived = stream.received_bytes()
            if received == 0 < arrived or arrived - received >= PROGRESS_BYTES:
                received, moved_at = arrived, now
            if now - max(reading_since, moved_at) >= patience_s:
                return

    def give_up(watching: asyncio.Task[None]) -> None:
        # Also if it failed, or the client would be waited for without end.
        if not watching.cancelled():
            with suppress(RuntimeError):  # the block has ended meanwhile
                limit.reschedule(0)

    async with asyncio.timeout(None) as limit:
        watching = asyncio.create_task(watch())
        watching.add_done_callback(give_up)
        try:
            yield read
        finally:
            watching.cancel()
