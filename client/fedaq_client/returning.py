"""A client that comes back whenever it lost the server."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from math import inf

from fedaq.energy.cost import RadioCost
from fedaq.errors import FedaqError, UserError
from fedaq_client.below import Below
from fedaq_client.endings import ServerStoppedError
from fedaq_client.events import Event
from fedaq_client.means import Means
from fedaq_client.privacy import SEEN, Privacy
from fedaq_client.readiness import Ready
from fedaq_client.session import Session, Stream
from fedaq_client.training import Learner
from fedaq_client.transport.connection import NameTakenError, NobodyListensError

log = logging.getLogger(__name__)

# Waits grow from the first to the longest, so that a server is found within seconds of its return.
# Seconds of one attempt to connect.
CONNECT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 6.0
# So long the server may take the last life of a client for alive, if it died without a word.
NAME_TAKEN_S = 40.0
# Then all clients have lost it, and are to come back one after another.
SERVER_IS_GONE = (ServerStoppedError, NobodyListensError)


@dataclass
class Waits:
    """Seconds to wait before each new attempt: exponential back-off with jitter.

    A client that alone has lost the server is back at once. Where the server is gone, and all have
    lost it, each takes a moment of its own in the window and comes at that moment of every
    window that follows: whenever the server is back, all are back a window later, and no two
    moments of it see more of them than others.

    Parameters
    ----------
    window_s : float
        As the server asked; it grows with the number of clients.
    draw : callable
        Returns random numbers from 0 to 1.
    """

    window_s: float = 0.0
    draw: Callable[[], float] = random.random
    _whole_s: float = FIRST_WAIT_S
    _has_moment: bool = False

    def next_s(self, *, is_gone: bool) -> float:
        """Return the next one; `is_gone` tells whether the server is, and not the way to it."""
        wait_s = self._whole_s * (1 + self.draw()) / 2
        self._whole_s = min(2 * self._whole_s, LONGEST_WAIT_S)
        if not is_gone:
            return wait_s
        if self._has_moment:
            return max(wait_s, self.window_s)
        self._has_moment = True
        return wait_s + self.window_s * self.draw()


async def take_part(
    connect: Callable[[], AbstractAsyncContextManager[Stream]],
    name: str,
    learner: Learner,
    radio: RadioCost | None,
    on_event: Callable[[Event], None],
    give_up_after_s: float | None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    on_training: Callable[[int, int], None] = lambda done, total: None,
    on_transfer: Callable[[bool, int, int], None] = lambda down, done, total: None,
    ready: Ready | None = None,
    means: Means | None = None,
    privacy: Privacy = SEEN,
    below: Below | None = None,
    turn: Callable[[Session], AbstractAsyncContextManager[object]] = nullcontext,
) -> str:
    """Take part until the run is over, through every loss of the connection.

    Parameters
    ----------
    connect : callable
        Opens a stream to the server.
    name, learner, radio, on_event, on_training, on_transfer, ready, means, privacy, below, turn
        As of a `Session`.
    give_up_after_s : float, optional
        Seconds without a server; None for patience without end.
    sleep : callable

    Returns
    -------
    str
        The server's reason for the end.

    Raises
    ------
    UserError
        If the server refuses this client.
    FedaqError
        If there was no server for too long.
    """
    process = os.urandom(8)
    waits, alone_since = Waits(), time.monotonic()
    while True:
        session: Session | None = None
        try:
            async with connect() as stream:
                session = Session(
                    stream, name, learner, radio, on_event, process,
                    on_training=on_training, on_transfer=on_transfer, ready=ready,
                    means=means or Means(), privacy=privacy, below=below, turn=turn,
                )  # fmt: skip
                return await session.participate()
        except UserError:
            raise
        except FedaqError as error:
            if session is not None and session.welcomed:
                waits, alone_since = Waits(session.return_window_s), time.monotonic()
            wait_s = waits.next_s(is_gone=isinstance(error, SERVER_IS_GONE))
            patience_s = NAME_TAKEN_S if isinstance(error, NameTakenError) else inf
            left_s = min(patience_s, give_up_after_s or inf) - (time.monotonic() - alone_since)
            if left_s < wait_s:
                if isinstance(error, NameTakenError):
                    raise UserError(str(error)) from None
                raise
            log.warning("%s; trying again in %.1f s", error, wait_s)
            await sleep(wait_s)
