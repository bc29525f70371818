"""A federation whose updates are known to the last bit, so that a wrong sum shows.

Client number n adds ``n / 8`` to every weight. That lies on the grid, so nothing is rounded.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedaq.codec.chunks import Chunk, parse
from fedaq.codec.common_grid import small_weights
from fedaq.codec.quantizer import Floats, Spread
from fedaq.errors import FedaqError
from fedaq.net.credentials import Certificates
from fedaq.settings import Settings, load_settings
from fedaq.tasks import Evaluation, Examples, Task, Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.endings import ServerStoppedError
from fedaq_client.events import Event
from fedaq_client.privacy import Privacy
from fedaq_client.session import Session, Stream
from fedaq_client.training import Learner
from fedaq_client.transport.access import PLAIN, Access
from fedaq_client.transport.connection import connect
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.rows import Transfer
from fedaq_server.run import Run
from fedaq_server.serve import serve

STEP = 1 / 8
PATIENCE_S = 60.0


class Ones(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.ones(300))
        self.single = nn.Parameter(torch.ones(()))


def task_of(number: int, also: Callable[[], object] = lambda: None) -> Task:
    def train(model: nn.Module, data: Any, training: Training, seed: int) -> float:
        also()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(number * STEP)
        return float(number)

    data = Examples(torch.zeros(7, 1), torch.zeros(7, dtype=torch.int64))
    return Task(
        "known", Ones, lambda _: data, lambda _: data, train=train,
        evaluate=lambda model, data: Evaluation(0.5, 1.0),
    )  # fmt: skip


def learner_of(number: int, examples: int, also: Callable[[], object] = lambda: None) -> Learner:
    data = Examples(torch.zeros(examples, 1), torch.zeros(examples, dtype=torch.int64))
    return Learner(task_of(number, also), data)


def settings_of(clients: int, **flags: Any) -> Settings:
    chosen = {
        "clients": clients,
        "rounds": 1,
        "network.port": 0,
        "network.return_wait_s": 2.0,
        "limits.strikes": 1000,
        "fedaq.uplink_resolution": STEP,
        "fedaq.downlink_resolution": 2.0**-10,
        "privacy.secure_aggregation": True,
    }
    given = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(environment={}, flags={**chosen, **given})


class Link:
    """A client's link that shows, before each message is sent, of which kind it is.

    Parameters
    ----------
    link : Stream
    change : callable
        Takes the client message, or a chunk, and returns what is sent instead.
    """

    def __init__(self, link: Stream, change: "Change") -> None:
        self._link, self._change = link, change

    async def send(self, frame: bytes) -> None:
        for changed in self._change(parse(frame, pb.ClientMessage)):
            if isinstance(changed, Chunk):
                await self._link.send(changed.frame(pb.ClientMessage))
            else:
                await self._link.send(changed.SerializeToString())

    async def receive(self) -> pb.ServerMessage | Chunk | None:
        return await self._link.receive()


Message = pb.ClientMessage | Chunk
Change = Callable[[Message], Iterable[Message]]


def kind_of(message: Message) -> str:
    return "chunk" if isinstance(message, Chunk) else str(message.WhichOneof("kind"))


class KilledError(FedaqError):
    """The client breaks off."""


def dies_before(*kinds: str) -> Change:
    def change(message: Message) -> Iterable[Message]:
        if kind_of(message) in kinds:
            raise KilledError("killed")
        yield message

    return change


def honest(message: Message) -> Iterable[Message]:
    yield message


async def take_part(
    address: str,
    number: int,
    change: Change = honest,
    examples: int = 7,
    events: list[Event] | None = None,
    access: Access = PLAIN,
    signer: Certificates | None = None,
    *,
    required: bool = True,
) -> None:
    heard: list[Event] = [] if events is None else events
    async with connect(address, PATIENCE_S, access) as link:
        await Session(
            Link(link, change), f"client-{number}", learner_of(number, examples), None,
            heard.append, privacy=Privacy(required, signer),
        ).participate()  # fmt: skip


async def federate(
    folder: Path,
    changes: Mapping[int, Change],
    clients: int,
    examples: Mapping[int, int] | None = None,
    events: Mapping[int, list[Event]] | None = None,
    accesses: Mapping[int, Access] | None = None,
    signers: Mapping[int, Certificates] | None = None,
    **flags: Any,
) -> "Done":
    """Run a federation to its end; clients with a change may end as they like."""
    settings = settings_of(clients, **flags)
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    transfers: list[Transfer] = []
    folder.mkdir(parents=True)  # noqa: ASYNC240
    with closing(Ledger(folder)) as ledger:
        run = Run(settings, ledger, lambda record: None, task_of(0))
        run.on_commit = lambda committed, plan: transfers.extend(committed.transfers)
        server = asyncio.create_task(serve(run, port.set_result))
        async with asyncio.timeout(PATIENCE_S):
            address = f"127.0.0.1:{await port}"

            async def one(number: int) -> None:
                try:
                    await take_part(
                        address, number, changes.get(number, honest),
                        (examples or {}).get(number, 7), (events or {}).get(number),
                        (accesses or {}).get(number, PLAIN), (signers or {}).get(number),
                        required=settings.privacy.secure_aggregation,
                    )  # fmt: skip
                except ServerStoppedError:
                    return  # it has the better reason
                except FedaqError:
                    assert number in changes

            async with asyncio.TaskGroup() as group:
                for number in range(1, clients + 1):
                    group.create_task(one(number))
            await server
        names = [f"client-{number}" for number in range(1, clients + 1)]
        return Done(run, run.records, run.ledger.ranges(names), transfers)


@dataclass(frozen=True)
class Done:
    """A run that is over, and what its ledger said."""

    run: Run
    records: list[RoundRecord]
    ranges: dict[str, tuple[Spread, ...]]
    transfers: list[Transfer]

    @property
    def model(self) -> Floats:
        return self.run.federation.model


def expected(counted: Iterable[int], weights: Mapping[int, int] | None = None) -> float:
    """Every weight of a model after one round to which these clients brought their updates."""
    numbers = list(counted)
    weights = weights or dict.fromkeys(numbers, 1)
    total = sum(weights[number] for number in numbers)
    return 1 + sum(weights[number] * number for number in numbers) * STEP / total


def weights_of(examples: Mapping[int, int]) -> dict[int, int]:
    small = small_weights({str(number): count for number, count in examples.items()})
    return {int(name): weight for name, weight in small.items()}
