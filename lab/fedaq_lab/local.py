"""A federation in one process: the very same server and client code, without sockets.

Messages are serialized and parsed as they are over gRPC; queues take the place of the
connections. All heavy steps share one worker thread, so clients train in turn, and a few learners
are enough for any number of clients.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fedaq.codec.chunks import Chunk, parse
from fedaq.errors import FedaqError, UserError
from fedaq.settings import Settings, load_settings
from fedaq.tasks import Task, read_data
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.endings import ServerStoppedError
from fedaq_client.privacy import privacy_of
from fedaq_client.session import Session
from fedaq_client.sharing import shares_of
from fedaq_client.training import Learner
from fedaq_lab.pools import HERE, Pool
from fedaq_lab.population import Population
from fedaq_server.cli.display import Display
from fedaq_server.cli.server_process import show_run
from fedaq_server.identity.caller import JoinRefusedError
from fedaq_server.records.run_folder import new_run
from fedaq_server.records.weights import base_of
from fedaq_server.run import Run
from fedaq_server.serve import page_shown
from fedaq_server.transport.service import Admission, serve_client
from fedaq_server.transport.tcp_counter import NoWire

_QUEUE = 4
_NEVER_S = 1e9
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
    *,
    config: Path | None,
    out: Path | None,
    flags: Mapping[str, Any],
    assignments: list[str],
    pool: Pool = HERE,
) -> None:
    """Run a whole federation in this process and show it; clients may train elsewhere.

    Raises
    ------
    UserError
        If a setting is wrong.
    """
    settings = load_settings(config=config, flags=flags, assignments=assignments)
    show_run(new_run(out, settings), partial(_watched, pool=pool))


async def _watched(run: Run, display: Display, pool: Pool) -> None:
    async with page_shown(run) as page:
        if page is not None:
            display.on_page(page)
        await federate(run, pool)


async def federate(run: Run, pool: Pool = HERE) -> None:
    """Bring the clients of a run to it and carry it out.

    Raises
    ------
    FedaqError
        If the run fails.
    """
    try:
        await _federate(run, pool)
    except ExceptionGroup as group:
        errors, _ = group.split(FedaqError)
        raise (errors or group).exceptions[0] from None


async def _federate(run: Run, pool: Pool) -> None:
    with pool.executor() as worker:
        asyncio.get_running_loop().set_default_executor(worker)
        base = base_of(run.settings.start_from, run.ledger.start_path)
        settings = run.settings.model_copy(update={"start_from": base})
        admission = replace(run.admission, settings=_without_heartbeats(settings))
        with _members(run.task, settings, run.folder, pool) as members:
            async with asyncio.TaskGroup() as group:
                for member in members:
                    up, down = Frames(_QUEUE), Frames(_QUEUE)
                    session = Session(
                        _ClientEnd(down, up), member.name, member.learner, None,
                        lambda progress: None, turn=member.turn,
                        privacy=privacy_of(run.settings),
                    )  # fmt: skip
                    group.create_task(_serve(admission, _ServerEnd(up, down)))
                    group.create_task(_participate(session))
                await run.rounds(NoWire())


def _without_heartbeats(settings: Settings) -> Settings:
    """Neither end of a stream within a process can vanish without the other."""
    network = settings.network.model_copy(update={"heartbeat_interval_s": _NEVER_S})
    return settings.model_copy(update={"network": network})


async def _serve(admission: Admission, stream: _ServerEnd) -> None:
    try:
        await serve_client(admission, stream)
    except JoinRefusedError as refusal:
        raise UserError(str(refusal)) from None


async def _participate(session: Session) -> None:
    with suppress(ServerStoppedError):  # it has the better reason
        await session.participate()


@dataclass(frozen=True)
class Member:
    """A client of a run in this process; see `Session` for the rest."""

    name: str
    learner: Learner
    turn: Callable[[Session], AbstractAsyncContextManager[object]] = nullcontext


@contextmanager
def _members(task: Task, settings: Settings, folder: Path, pool: Pool) -> Iterator[list[Member]]:
    everything = read_data(task, "train_data", settings.data)
    shares = shares_of(task, everything, settings)
    with (
        pool.learners(task, everything, settings) as learners,
        closing(Population(learners, shares, folder)) as population,
    ):
        yield [
            Member(f"client-{number}", learners[0], partial(population.turn, number - 1))
            for number in range(1, settings.clients + 1)
        ]
