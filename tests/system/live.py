"""A server on a real socket in this process, and clients that do not always do their part."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedaq.codec.chunks import Chunk
from fedaq.settings import Settings, load_settings
from fedaq.tasks import load_task, train_classifier
from fedaq.tasks.partition import Partition
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.events import Event, Sent
from fedaq_client.means import Means
from fedaq_client.session import Session, Stream
from fedaq_client.sharing import local_data
from fedaq_client.training import Learner
from fedaq_client.transport.connection import connect
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.serve import serve

PATIENCE_S = 60.0


def settings_of(clients: int, **flags: Any) -> Settings:
    """Return the settings of a run on digits; ``a__b=c`` stands for ``--set a.b=c``."""
    return load_settings(
        environment={},
        flags={
            "task": "digits",
            "clients": clients,
            "network.port": 0,
            **{name.replace("__", "."): value for name, value in flags.items()},
        },
    )


def learner(number: int, parts: int, seed: int = 1, pause_s: float = 0.0) -> Learner:
    """Return a part of digits and the model that a run of this seed begins with.

    Training takes `pause_s` longer than it would.
    """

    def train(*arguments: Any) -> float:
        time.sleep(pause_s)
        return train_classifier(*arguments)

    task = replace(load_task("digits", None), train=train)
    settings = settings_of(1)
    data = local_data(
        task.train_data(None), Partition(number, parts), settings.partition, settings.seed
    )
    return Learner(task, data, seed)


@asynccontextmanager
async def live_server(
    settings: Settings,
    folder: Path,
    on_round: Callable[[Run, RoundRecord], None] = lambda run, record: None,
) -> AsyncIterator[tuple[Run, str]]:
    """Run a server and, once the block is left, wait for the end of its run."""
    run = Run(settings, Ledger(folder), lambda record: on_round(run, record))
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(run, port.set_result))
    try:
        async with asyncio.timeout(PATIENCE_S):
            ready: set[asyncio.Future[Any]] = {server, port}
            await asyncio.wait(ready, return_when=asyncio.FIRST_COMPLETED)
            yield run, f"127.0.0.1:{port.result()}"
            await server
    finally:
        server.cancel()
        await asyncio.wait([server])


class HeardLink:
    """A client's link of which every message that comes is shown to somebody first.

    Parameters
    ----------
    link : Stream
    hear : callable
        Takes the message; what it raises ends the session, and with it the stream.
    """

    def __init__(self, link: Stream, hear: Callable[[pb.ServerMessage | Chunk], object]) -> None:
        self._link = link
        self._hear = hear

    async def send(self, frame: bytes) -> None:
        """Send a message."""
        await self._link.send(frame)

    async def receive(self) -> pb.ServerMessage | Chunk | None:
        """Return the next message."""
        message = await self._link.receive()
        if message is not None:
            self._hear(message)
        return message


def only_sent(on_round: Callable[[Sent], object]) -> Callable[[Event], None]:
    """Return what hears of all events, and tells of rounds whose update counted."""

    def on_event(event: Event) -> None:
        if isinstance(event, Sent):
            on_round(event)

    return on_event


async def take_part(
    address: str,
    name: str,
    part: Learner,
    on_round: Callable[[Sent], None] = lambda progress: None,
    hear: Callable[[pb.ServerMessage | Chunk], object] = lambda message: None,
    patience_s: float = PATIENCE_S,
    budget: Mapping[str, float] | None = None,
) -> None:
    """Take part from now to the end of the run; connect within `patience_s`."""
    async with connect(address, patience_s) as link:
        session = Session(
            HeardLink(link, hear), name, part, None, only_sent(on_round), means=Means(budget or {})
        )
        await session.participate()
