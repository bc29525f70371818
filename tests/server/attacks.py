"""A server on real sockets, honest clients, and hostile ones that attack in every round."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from fedaq.codec import chunks
from fedaq.codec.model import ModelSpec
from fedaq.modules import signature
from fedaq.settings import Settings, load_settings
from fedaq.tasks import load_task
from fedaq.tasks.partition import WHOLE, Partition
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.session import Session
from fedaq_client.sharing import local_data
from fedaq_client.training import Learner
from fedaq_client.transport.connection import connect
from fedaq_server.identity.caller import JoinRefusedError
from fedaq_server.run import Run
from system.live import live_server, only_sent
from system.raw_client import FinishedError, RawClient, raw_client

HONEST = 2
ROUNDS = 2
PATIENCE_S = 60
Attack = Callable[[RawClient, int], Awaitable[Any]]


def settings_of(clients: int, **flags: Any) -> Settings:
    return load_settings(
        environment={},
        flags={
            "task": "digits",
            "clients": clients,
            "rounds": ROUNDS,
            "scheme": "fixed",
            "fixed.uplink_bits": 3,
            "fixed.downlink_bits": 6,
            "network.port": 0,
            # Nobody who is gone comes back here.
            "network.return_wait_s": 0.5,
            # What follows from repeated misbehaviour is tested in test_conduct.py.
            "limits.strikes": 1000,
            "limits.norm_factor": 0,
            "limits.examples_factor": 1e6,
            **{name.replace("__", "."): value for name, value in flags.items()},
        },
    )


async def honest_client(address: str, number: int) -> list[int]:
    """Take part to the end and return the rounds in which the update counted."""
    rounds: list[int] = []
    part = learner(Partition(number, HONEST))
    async with connect(address, PATIENCE_S) as link:
        await Session(
            link, f"honest-{number}", part, None, only_sent(lambda done: rounds.append(done.round))
        ).participate()
    return rounds


def learner(partition: Partition = WHOLE) -> Learner:
    task = load_task("digits", None)
    settings = settings_of(1)
    data = local_data(task.train_data(None), partition, settings.partition, settings.seed)
    return Learner(task, data)


async def federate(
    folder: Path,
    *hostile: Callable[[str, ModelSpec], Coroutine[Any, Any, None]],
    clients: int | None = None,
    **flags: Any,
) -> Run:
    """Run the honest clients and the hostile ones to the end of the run."""
    settings = settings_of(HONEST + len(hostile) if clients is None else clients, **flags)
    async with live_server(settings, folder) as (run, address), asyncio.TaskGroup() as group:
        rounds = [group.create_task(honest_client(address, n)) for n in range(HONEST)]
        for act in hostile:
            group.create_task(act(address, run.spec))
    for counted in rounds:
        assert counted.result() == list(range(1, settings.rounds + 1))
    return run


def result_of(folder: Path) -> str:
    """Return the hash of the model that a run left behind."""
    return sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def every_round(
    attack: Attack, name: str = "mallory"
) -> Callable[[str, ModelSpec], Coroutine[Any, Any, None]]:
    """Join, and attack in every round until the run is over."""

    async def act(address: str, spec: ModelSpec) -> None:
        async with raw_client(address, spec) as client:
            await client.join(client=name)
            try:
                while True:
                    plan = (await client.receive("plan")).plan
                    await attack(client, plan.round)
            except FinishedError:
                return

    return act


NAN, INF = float("nan"), float("inf")


def load_spec() -> ModelSpec:
    return signature.spec_of(load_task("digits", None).model())


@dataclass
class Mutilated:
    """A client's link in memory that spoils one of its messages on the way."""

    to_server: "asyncio.Queue[bytes | None]"
    to_client: "asyncio.Queue[bytes]"
    number: int
    spoil: Callable[[bytes], list[bytes]]
    sent: int = 0

    async def send(self, frame: bytes) -> None:
        for other in self.spoil(frame) if self.sent == self.number else [frame]:
            await self.to_server.put(other)
        self.sent += 1

    async def receive(self) -> pb.ServerMessage | chunks.Chunk:
        return chunks.parse(await self.to_client.get(), pb.ServerMessage)

    async def read(self) -> pb.ClientMessage | chunks.Chunk | None:
        frame = await self.to_server.get()
        try:
            return None if frame is None else chunks.parse(frame, pb.ClientMessage)
        except DecodeError:
            raise JoinRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "no message") from None

    async def write(self, frame: bytes) -> None:
        await self.to_client.put(frame)

    def received_bytes(self) -> int:
        return 0
