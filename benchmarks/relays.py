"""Six clients directly, and through two relays with three clients each, in one run.

    python benchmarks/relays.py --task digits --rounds 30 --budget 0.2J --far lte-m --near wifi

Everything goes over real sockets of this process. `--far` is the radio to the server, of a client
or of a relay, `--near` that between clients and their relay. Prints accuracy, the payload bytes
that the server sends and receives, and joules: of its own hop, and of those of the relays. With
`--presets`, of every far radio; with `--each`, of every round.
"""

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedaq.energy.radios import PRESETS
from fedaq.settings import Settings, load_settings
from fedaq.tasks import Task, load_task, read_data
from fedaq.tasks.hardware import use_threads
from fedaq.tasks.partition import Partition
from fedaq_client.learners import learner_of
from fedaq_client.returning import CONNECT_S, take_part
from fedaq_client.training import Learner
from fedaq_client.transport.access import PLAIN
from fedaq_client.transport.connection import in_turn
from fedaq_relay.relay import Relay
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.serve import serve

CLIENTS, RELAYS = 6, 2


@dataclass(frozen=True)
class Spent:
    """What a run came to."""

    accuracy: float
    best: float
    bytes: int
    own_j: float
    relays_j: float


def settings_of(asked: argparse.Namespace, radio: str, clients: int, **more: Any) -> Settings:
    """Return the settings of a server or of a relay, whose clients have this radio."""
    return load_settings(
        environment={},
        flags={
            "task": asked.task, "data": asked.data, "rounds": asked.rounds, "seed": asked.seed,
            "scheme": asked.scheme, "clients": clients, "energy.radio": radio, "network.port": 0,
            "network.heartbeat_interval_s": 1.0, **more,
        },
        assignments=asked.set,
    )  # fmt: skip


async def _client(task: Task, data: Any, settings: Settings, number: int, address: str) -> None:
    part = Partition(number, CLIENTS)
    learner = learner_of(task, data, part, settings)
    await _participate(address, f"client-{number + 1}", learner)


async def _participate(address: str, name: str, learner: Learner, **more: Any) -> str:
    connect = in_turn([(address, PLAIN)], CONNECT_S)
    return await take_part(connect, name, learner, None, lambda event: None, 60.0, **more)


async def _relay(
    task: Task, settings: Settings, folder: Path, name: str, address: str,
    on_listening: Callable[[int], None],
) -> None:  # fmt: skip
    learner = Learner(task, (), settings.seed)
    relay = Relay(settings, task, learner, Ledger(folder), on_listening=on_listening)
    connect = in_turn([(address, PLAIN)], CONNECT_S)

    def session() -> Awaitable[str]:
        return take_part(
            lambda: relay.connected(connect), name, learner, None, lambda event: None, 60.0,
            ready=relay.ready, below=relay,
        )  # fmt: skip

    await relay.take_part(session)


async def _federate(asked: argparse.Namespace, far: str, near: str | None, folder: Path) -> Spent:
    task = load_task(asked.task, asked.data)
    data = read_data(task, "train_data", asked.data)
    senders = CLIENTS if near is None else RELAYS
    more = {"energy.budget": asked.budget} if asked.budget else {}
    settings = settings_of(asked, far, senders, **more)
    await asyncio.to_thread(folder.mkdir)
    records: list[RoundRecord] = []
    ledger = Ledger(folder)
    ledger.begin(settings.model_dump(mode="json"))
    run = Run(settings, ledger, records.append, task)
    loop = asyncio.get_running_loop()
    at: asyncio.Future[int] = loop.create_future()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(run, at.set_result))
        address = f"127.0.0.1:{await at}"
        for number in range(CLIENTS if near is None else 0):
            group.create_task(_client(task, data, settings, number, address))
        for relay in range(0 if near is None else RELAYS):
            assert near is not None
            each = CLIENTS // RELAYS
            own, below = settings_of(asked, near, each), folder / f"relay-{relay + 1}"
            await asyncio.to_thread(below.mkdir)
            port: asyncio.Future[int] = loop.create_future()
            group.create_task(
                _relay(task, own, below, f"relay-{relay + 1}", address, port.set_result)
            )
            there = f"127.0.0.1:{await port}"
            for number in range(relay * each, (relay + 1) * each):
                group.create_task(_client(task, data, own, number, there))
    total_j, relays_j = sum(r.energy_j for r in records), sum(r.relays_j for r in records)
    accuracy = [record.test_accuracy for record in records]
    for record in records if asked.each else []:
        print(
            f"round {record.round}: {record.test_accuracy:.4f}, "
            f"{record.energy_j - record.relays_j:.4g} J and {record.relays_j:.4g} J of relays, "
            f"price {record.price:.4g}, {record.clients} updates"
        )
    moved = sum(r.uplink_payload_bytes + r.downlink_payload_bytes for r in records)
    return Spent(accuracy[-1], max(accuracy), moved, total_j - relays_j, relays_j)


def federated(asked: argparse.Namespace, far: str, near: str | None) -> Spent:
    """Run six clients, directly or through relays."""

    async def main(folder: Path) -> Spent:
        with ThreadPoolExecutor(1, "work") as worker:
            # Clients of one process train by turns.
            asyncio.get_running_loop().set_default_executor(worker)
            return await _federate(asked, far, near, folder)

    with TemporaryDirectory() as folder:
        return asyncio.run(main(Path(folder) / "run"))


def main() -> None:
    """Run both ways and print what they came to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scheme", default="fedaq")
    parser.add_argument("--budget", help="of both hops, for example 0.2J")
    parser.add_argument("--far", default="lte-m")
    parser.add_argument("--near", default="wifi")
    parser.add_argument("--presets", action="store_true", help="every preset as the far radio")
    parser.add_argument("--each", action="store_true", help="print every round")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    use_threads(1, default=1)
    print("| far | near | | accuracy | best | server's bytes | its hop | relays' hops | total |")
    print("|---|---|---|---|---|---|---|---|---|")
    for far in PRESETS if asked.presets else [asked.far]:
        for name, near in (("direct", None), ("relayed", asked.near)):
            got = federated(asked, far, near)
            print(
                f"| {far} | {near or '-'} | {name} | {got.accuracy:.4f} | {got.best:.4f} | "
                f"{got.bytes} | {got.own_j:.4g} J | {got.relays_j:.4g} J | "
                f"{got.own_j + got.relays_j:.4g} J |",
                flush=True,
            )


if __name__ == "__main__":
    main()
