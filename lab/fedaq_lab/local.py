"""A federation in one process: the very same server and client code, without sockets.

Messages are serialized and parsed as they are over gRPC; queues take the place of the
connections. All heavy steps share one worker thread, so clients train in turn.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaq.codec.chunks import Chunk, parse
from fedaq.errors import FedaqError, UserError
from fedaq.settings import Settings, load_settings
from fedaq.tasks import Task, read_data
from fedaq.tasks.partition import Partition
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.endings import ServerStoppedError
from fedaq_client.session import Session
from fedaq_client.training import Learner, learner_of
from fedaq_server.cli.display import Display
from fedaq_server.cli.server_process import show_run
from fedaq_server.identity.caller import JoinRefusedError
from fedaq_server.records.run_folder import new_run
from fedaq_server.records.weights import base_of
from fedaq_server.run import Run
from fedaq_server.serve import page_shown
from fedaq_server.transport.service import serve_client
from fedaq_server.transport.tcp_counter import NoWire

_QUEUE = 4
Frames = asyncio.Queue[bytes | None]


@dataclass(frozen=True)
class _ServerEnd:
    """A `fedaq_server.transport.client.Stream`."""

    incoming: Frames
    outgoing: Frames

    async def read(self) -> pb.ClientMessage | Chunk | None:
        frame = await self.incoming.get()
        return None if frame is None else parse(frame, pb.ClientMessage)

    async def write(self, frame: bytes) -> None:
        await self.outgoing.put(frame)

    def received_bytes(self) -> int:
        return 0


@dataclass(frozen=True)
class _ClientEnd:
    """A `fedaq_client.session.Stream`."""

    incoming: Frames
    outgoing: Frames

    async def send(self, frame: bytes) -> None:
        await self.outgoing.put(frame)

    async def receive(self) -> pb.ServerMessage | Chunk | None:
        frame = await self.incoming.get()
        return None if frame is None else parse(frame, pb.ServerMessage)


def run_local(
    *, config: Path | None, out: Path | None, flags: Mapping[str, Any], assignments: list[str]
) -> None:
    """Run a whole federation in this process and show it.

    Raises
    ------
    UserError
        If a setting is wrong.
    """
    settings = load_settings(config=config, flags=flags, assignments=assignments)
    show_run(new_run(out, settings), _watched)


async def _watched(run: Run, display: Display) -> None:
    async with page_shown(run) as page:
        if page is not None:
            display.on_page(page)
        await federate(run)


async def federate(run: Run) -> None:
    """Bring the clients of a run to it and carry it out.

    Raises
    ------
    FedaqError
        If the run fails.
    """
    try:
        await _federate(run)
    except ExceptionGroup as group:
        errors, _ = group.split(FedaqError)
        raise (errors or group).exceptions[0] from None


async def _federate(run: Run) -> None:
    with ThreadPoolExecutor(1, "work") as worker:
        asyncio.get_running_loop().set_default_executor(worker)
        base = base_of(run.settings.start_from, run.ledger.start_path)
        learners = _learners(run.task, run.settings.model_copy(update={"start_from": base}))
        async with asyncio.TaskGroup() as group:
            for name, learner in learners:
                up, down = Frames(_QUEUE), Frames(_QUEUE)
                session = Session(_ClientEnd(down, up), name, learner, None, lambda progress: None)
                group.create_task(_serve(run, _ServerEnd(up, down)))
                group.create_task(_participate(session))
            await run.rounds(NoWire())


async def _serve(run: Run, stream: _ServerEnd) -> None:
    try:
        await serve_client(run.admission, stream)
    except JoinRefusedError as refusal:
        raise UserError(str(refusal)) from None


async def _participate(session: Session) -> None:
    with suppress(ServerStoppedError):  # it has the better reason
        await session.participate()


def _learners(task: Task, settings: Settings) -> list[tuple[str, Learner]]:
    everything = read_data(task, "train_data", settings.data)
    parts = [Partition(index, settings.clients) for index in range(settings.clients)]
    return [
        (f"client-{number}", learner_of(task, everything, part, settings))
        for number, part in enumerate(parts, 1)
    ]
