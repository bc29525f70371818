"""What systemd is told of a client (sd_notify): that it is ready, alive, and what it does."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def notify(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager a state, such as ``READY=1``; nothing where there is none."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):  # Windows has another manager
        return
    # Whoever set the variable may have gone or read nothing; no training waits for that.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there, suppress(OSError):
        there.setblocking(False)
        there.connect("\0" + address[1:] if address[0] == "@" else address)
        there.send(state.encode())


async def watched(work: Awaitable[T], environment: Mapping[str, str] = os.environ) -> T:
    """Do the work; while the event loop turns, tell the service manager so.

    Training runs on a thread of its own and may take as long as it likes; a loop that stands
    still hears no server any more, and WatchdogSec= restarts such a client.
    """
    notify("READY=1", environment)
    beat = asyncio.create_task(_beat(environment))
    try:
        return await work
    finally:
        beat.cancel()
        notify("STOPPING=1", environment)


async def _beat(environment: Mapping[str, str]) -> None:
    patience_us = environment.get("WATCHDOG_USEC", "")
    ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not (patience_us.isdecimal() and ours):
        return
    while True:
        notify("WATCHDOG=1", environment)
        # Half of the patience, as systemd's manual advises.
        await asyncio.sleep(int(patience_us) / 2e6)
