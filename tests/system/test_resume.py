"""Servers that are killed and go on, clients that return, rounds with too few."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest

from fedaq.codec.chunks import Chunk, kind_of
from fedaq.settings import load_settings
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.training import Learner
from fedaq_lab.local import federate as federate_locally
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.loop import drawn
from fedaq_server.run import Run
from fedaq_server.transport.client import Client
from system.commands import Commands, Running, free_port
from system.live import learner, live_server, settings_of, take_part

ROUNDS = 8
# All that differs between equal runs.
OF_THE_MOMENT = ("seconds", "uplink_wire_bytes", "downlink_wire_bytes")


def records(folder: Path) -> list[dict[str, Any]]:
    rounds = json.loads((folder / "run.json").read_text())["rounds"]
    return [{k: v for k, v in record.items() if k not in OF_THE_MOMENT} for record in rounds]


def slow(*settings: str) -> Any:
    return pytest.param(settings, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("energy.budget_j=0.08", "network.heartbeat_interval_s=1"),
        ("energy.device_budget=1J,client-2:8mJ", "energy.budget=100kB", "min_clients=1"),
        slow("coding.entropy=false", "coding.downlink=model", "base=exact", "scheme=feddq"),
        (
            "server_optimizer.kind=fedadam",
            "training.optimizer=adamw",
            "training.proximal=0.1",
            "training.learning_rate=0.003",
            "training.keep_optimizer=true",
            "training.schedule=cosine",
            "training.clip_norm=1",
        ),
        slow("server_optimizer.kind=fedavgm", "server_optimizer.learning_rate=0.3", "scheme=fixed"),
        slow("server_optimizer.kind=fedyogi", "aggregation=median", "fedaq.uplink_resolution=0.01"),
        slow("scheme=stc", "stc.fraction=1/50"),
        slow("scheme=topk", "topk.fraction=1/50"),
    ],
    ids=["differences", "budget", "batteries", "models", "adam", "momentum", "yogi", "stc", "topk"],
)
def test_a_server_that_is_killed_comes_to_the_same_end(
    settings: tuple[str, ...], commands: Commands
) -> None:
    """Model and ledger are those of a run in one process that nobody killed."""
    common = ["--task", "digits", "--clients", 2, "--rounds", ROUNDS]
    common += [word for assignment in settings for word in ("--set", assignment)]
    port = free_port()
    server = commands.start("server", *common, "--port", port, "--out", "wild")
    clients = [
        commands.start("client", "--server", f"127.0.0.1:{port}", "--partition", part)
        for part in ("1/2", "2/2")
    ]
    for last in (2, 5):
        server.wait_for(f"round {last}/")
        server.process.kill()
        server.process.wait()
        server = commands.start("server", "--resume", "wild")
    ends = [running.wait() for running in (server, *clients)]
    assert [end.code for end in ends] == [0, 0, 0], ends
    wild, quiet = commands.folder / "wild", commands.folder / "calm"
    quiet.mkdir()
    same = load_settings(
        environment={}, flags={"task": "digits", "clients": 2, "rounds": ROUNDS},
        assignments=settings,
    )  # fmt: skip
    asyncio.run(federate_locally(Run(same, Ledger(quiet), lambda record: None)))
    assert records(wild) == records(quiet)
    assert (wild / "model.safetensors").read_bytes() == (quiet / "model.safetensors").read_bytes()
    with closing(sqlite3.connect(wild / "ledger.sqlite")) as database:
        (spent_j,) = database.execute("SELECT SUM(energy_j) FROM rounds").fetchone()
        (moved,) = database.execute(
            "SELECT SUM(payload_bytes) FROM transfers WHERE counted"
        ).fetchone()
    assert spent_j == pytest.approx(sum(record["energy_j"] for record in records(quiet)))
    names = ("uplink_payload_bytes", "downlink_payload_bytes")
    assert moved == sum(record[name] for record in records(quiet) for name in names)
    assert sorted(p.name for p in wild.iterdir()) == [
        "ledger.sqlite", "model.safetensors", "run.json", "run.png",
    ]  # fmt: skip
    assert "going on after round" in ends[0].out


def test_a_run_that_is_over_or_has_other_settings_is_not_resumed(commands: Commands) -> None:
    done = commands.run("run", "--engine", "local", "--clients", 2, "--rounds", 2, "--out", "new")
    assert done.code == 0
    over = commands.run("server", "--resume", "new")
    assert (over.code, over.err) == (
        2, "fedaq: --resume new: the run is over after 2 rounds\n",
    )  # fmt: skip
    both = commands.run("server", "--resume", "new", "--out", "other")
    assert both.code == 2


# ---- In-process --------------------------------------------------------------


def live(
    folder: Path, parts: dict[str, Learner], hear: Callable[[str, Any], None], **settings: Any
) -> Run:
    async def federate() -> Run:
        async with (
            live_server(settings_of(len(parts), **settings), folder, ignore) as (run, address),
            asyncio.TaskGroup() as group,
        ):
            for name, part in parts.items():
                group.create_task(returning(address, name, part, hear))
        return run

    return asyncio.run(federate())


def ignore(run: Run, record: RoundRecord) -> None:
    pass


class CutError(Exception):
    pass


async def returning(
    address: str, name: str, part: Learner, hear: Callable[[str, Any], None]
) -> None:
    while True:
        try:
            await take_part(address, name, part, hear=lambda message: hear(name, message))
            return
        except CutError:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["model", "grant", "receipt"])
def test_a_client_that_loses_its_connection_returns_to_the_same_round(
    kind: str, tmp_path: Path
) -> None:
    """Its update counts once, and the model is the one of a run without the loss."""
    cuts = [2, 3]

    def hear(name: str, message: pb.ServerMessage | Chunk) -> None:
        said = kind_of(message)
        number = getattr(message, said).round if said in ("model", "grant", "receipt") else 0
        if name == "client-1" and said == kind and number in cuts:
            cuts.remove(number)
            raise CutError

    def parts() -> dict[str, Learner]:
        return {f"client-{n}": learner(n - 1, 2) for n in (1, 2)}

    lossy, calm = tmp_path / "lossy", tmp_path / "calm"
    for folder in (lossy, calm):
        folder.mkdir()
    run = live(lossy, parts(), hear, rounds=4)
    assert cuts == []
    assert [(record.clients, record.left_out) for record in run.records] == [(2, 0)] * 4
    undisturbed = Run(settings_of(2, rounds=4), Ledger(calm), lambda record: None)
    asyncio.run(federate_locally(undisturbed))
    assert run.federation.model.tobytes() == undisturbed.federation.model.tobytes()
    assert records(lossy) == records(calm)


def failing(part: Learner) -> Learner:
    def train(*arguments: Any) -> float:
        return nan

    part.task = replace(part.task, train=train)
    return part


def test_a_round_with_too_few_updates_does_not_change_the_model(tmp_path: Path) -> None:
    parts = {"client-1": learner(0, 2), "client-2": failing(learner(1, 2))}
    run = live(tmp_path, parts, lambda name, message: None, rounds=2, min_clients=2)
    assert [record.clients for record in run.records] == [0, 0]
    assert run.federation.model.tobytes() == learner(0, 2).held.tobytes()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        counted = database.execute(
            "SELECT COUNT(*) FROM transfers WHERE direction = 'uplink' AND counted"
        ).fetchone()
    assert counted == (0,)


def test_a_round_is_drawn_from_those_there(tmp_path: Path) -> None:
    settings = settings_of(4, rounds=5, clients_per_round=0.5, min_clients=2)
    run = Run(settings, Ledger(tmp_path), lambda record: None)
    asyncio.run(federate_locally(run))
    assert [record.clients for record in run.records] == [2] * 5
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        rows = database.execute("SELECT round, client FROM transfers WHERE direction = 'downlink'")
        drawn: dict[int, set[str]] = {}
        for number, client in rows:
            drawn.setdefault(number, set()).add(client)
    assert len({frozenset(names) for names in drawn.values()}) > 1
    assert run.records[-1].test_accuracy > 0.5


def test_a_lot_does_not_depend_on_who_else_is_there() -> None:
    settings = settings_of(20, clients_per_round=5)
    everyone: list[Any] = [Client(f"client-{n}", 1, None, None) for n in range(20)]  # type: ignore[arg-type]
    names = [client.name for client in drawn(everyone, settings, 3)]
    assert len(names) == 5
    assert names == sorted(names)
    without = [client for client in everyone if client.name != names[0]]
    assert set(names[1:]) < {client.name for client in drawn(without, settings, 3)}
    assert names != [client.name for client in drawn(everyone, settings, 4)]


def stopped(server: Running) -> None:
    server.process.terminate()
    server.process.wait(10.0)


def test_a_server_that_is_told_to_stop_can_be_resumed(commands: Commands) -> None:
    port = free_port()
    flags = ["--clients", 1, "--rounds", 6, "--set", "training.local_epochs=8"]
    server = commands.start("server", *flags, "--port", port, "--out", "new")
    client = commands.start("client", "--server", f"127.0.0.1:{port}", "--name", "anna")
    server.wait_for("round 2/")
    stopped(server)
    server = commands.start("server", "--resume", "new", "--port", port)
    assert (server.wait().code, client.wait().code) == (0, 0)
    assert [record["round"] for record in records(commands.folder / "new")] == list(range(1, 7))
