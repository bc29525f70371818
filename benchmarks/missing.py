"""A federation in which clients miss rounds, next to the same one in which none does.

    python benchmarks/missing.py
    python benchmarks/missing.py --task fashion-mnist --data DATA --clients 10 --rounds 40

In every round each client is cut off with a chance of 30 % when the round begins, before it has
received anything, and comes back at once for the next, with what it held. A server and its
clients in one process, over gRPC. Checks at the end that every client that took part in the
last round holds the model that the server says it holds.
"""

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.table import Table

from fedaq.codec import model
from fedaq.codec.chunks import Chunk
from fedaq.codec.quantizer import derive_seed
from fedaq.errors import FedaqError
from fedaq.process.terminal import console
from fedaq.settings import Settings, load_settings
from fedaq.tasks import load_task
from fedaq.tasks.partition import Partition
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.session import Session
from fedaq_client.sharing import local_data
from fedaq_client.training import Learner
from fedaq_client.transport.connection import GrpcStream, connect
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import summarize
from fedaq_server.run import Run
from fedaq_server.serve import serve

PAUSE_S = 0.005
PATIENCE_S = 60.0


class CutOffError(FedaqError):
    """The client's connection broke when a round began."""

    def __init__(self, round_number: int) -> None:
        super().__init__(f"cut off in round {round_number}")
        self.round = round_number


@dataclass(frozen=True)
class CuttingLink:
    """A link that breaks off in some rounds, which the seed decides."""

    link: GrpcStream
    seed: int
    name: str
    chance: float
    rounds: int

    async def send(self, frame: bytes) -> None:
        await self.link.send(frame)

    async def receive(self) -> pb.ServerMessage | Chunk | None:
        message = await self.link.receive()
        if isinstance(message, pb.ServerMessage) and message.HasField("plan"):
            number = message.plan.round
            draw = derive_seed(self.seed, "cut off", self.name, number) / 2**63
            # In the last round all are to show what they hold, and who is cut off is away for two.
            if draw < self.chance and number < self.rounds - 2:
                raise CutOffError(number)
        return message


async def take_part(run: Run, address: str, name: str, learner: Learner, chance: float) -> None:
    """Take part to the end of the run, coming back when a round is over in which it was cut off."""
    settings = run.settings
    while True:
        try:
            async with connect(address, PATIENCE_S) as link:
                cutting = CuttingLink(link, settings.seed, name, chance, settings.rounds)
                await Session(cutting, name, learner, None, lambda progress: None).participate()
                return
        except CutOffError as error:
            while len(run.records) < error.round:  # noqa: ASYNC110 - a run tells nobody here
                await asyncio.sleep(PAUSE_S)


async def federate(settings: Settings, chance: float) -> Run:
    """Run the federation and return it."""
    task = load_task(settings.task, settings.data)
    everything = task.train_data(settings.data)
    learners = [
        Learner(
            task,
            local_data(
                everything, Partition(i, settings.clients), settings.partition, settings.seed
            ),
            settings.seed,
        )
        for i in range(settings.clients)
    ]
    with TemporaryDirectory() as folder:
        run = Run(settings, Ledger(Path(folder)), lambda record: None)
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            server = group.create_task(serve(run, port.set_result))
            address = f"127.0.0.1:{await port}"
            for number, learner in enumerate(learners, 1):
                group.create_task(take_part(run, address, f"client-{number}", learner, chance))
            await server
    history = run.federation.history
    assert history is not None
    if any(model.digest(learner.held) != history.digest for learner in learners):
        raise SystemExit("a client holds another model than the server says")
    return run


def row(name: str, run: Run) -> list[str]:
    totals: dict[str, Any] = summarize(run.records, run.task.metric)
    taken = sum(record.clients for record in run.records)
    asked = sum(record.clients + record.left_out for record in run.records)
    fresh = 4 * run.spec.parameters * taken
    down = totals["downlink_payload_bytes"]
    return [
        name,
        f"{1 - taken / asked:.0%}",
        f"{totals['final_accuracy']:.4f}",
        f"{down / 1e6:.2f}",
        f"{totals['catch_up_payload_bytes'] / 1e6:.2f}",
        f"{fresh / 1e6:.1f}",
        f"{totals['energy_j']:.3f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--chance", type=float, default=0.3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    flags = {name: getattr(options, name) for name in ("task", "data", "clients", "rounds")}
    settings = load_settings(flags={**flags, "network.port": 0, "network.return_wait_s": 0.0})
    table = Table(
        "", "missed", "final accuracy", "MB down", "of that to catch up", "MB of fresh models", "J"
    )
    for name, chance in (("all take part", 0.0), ("some are cut off", options.chance)):
        table.add_row(*row(name, asyncio.run(federate(settings, chance))))
    console.print(table)


if __name__ == "__main__":
    main()
