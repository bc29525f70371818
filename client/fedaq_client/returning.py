"""A client that comes back whenever it lost the server."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from math import inf

from fedaq.energy.cost import RadioCost
from fedaq.errors import FedaqError, UserError
from fedaq_client.below import Below
from fedaq_client.events import Event
from fedaq_client.means import Means
from fedaq_client.privacy import SEEN, Privacy
from fedaq_client.readiness import Ready
from fedaq_client.session import Session, Stream
from fedaq_client.training import Learner
from fedaq_client.transport.connection import NameTakenError

log = logging.getLogger(__name__)

# Waits grow from the first to the longest, so that a server is found within seconds of its
# return, and not asked by all clients at once.
# Seconds of one attempt to connect.
CONNECT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 6.0
# So long the server may take the last life of a client for alive, if it died without a word.
NAME_TAKEN_S = 40.0


def waits(draw: Callable[[], float] = random.random) -> Iterator[float]:
    """Yield seconds to wait before each new attempt: exponential back-off with jitter.

    Parameters
    ----------
    draw : callable
        Returns random numbers from 0 to 1.
    """
    wait_s = FIRST_WAIT_S
    while True:
        yield wait_s * (1 + draw()) / 2
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


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
    attempts, alone_since = waits(), time.monotonic()
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
                attempts, alone_since = waits(), time.monotonic()
            wait_s = next(attempts)
            patience_s = NAME_TAKEN_S if isinstance(error, NameTakenError) else inf
            left_s = min(patience_s, give_up_after_s or inf) - (time.monotonic() - alone_since)
            if left_s < wait_s:
                if isinstance(error, NameTakenError):
                    raise UserError(str(error)) from None
                raise
            log.warning("%s; trying again in %.1f s", error, wait_s)
            await sleep(wait_s)
