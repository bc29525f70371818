"""Relays: their clients learn what they learn without them, also where relays are killed."""

import asyncio
import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fedaq
from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq.tasks import load_task, read_data, train_classifier
from fedaq.tasks.partition import Partition
from fedaq_client.learners import learner_of
from fedaq_client.returning import take_part
from fedaq_client.training import Learner
from fedaq_client.transport.access import PLAIN
from fedaq_client.transport.connection import in_turn
from fedaq_relay.cli.relay_process import run_relay
from fedaq_relay.relay import Relay
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from system import live
from system.commands import Commands, Running, free_port

PATIENCE_S = 120.0
CLIENTS, RELAYS = 4, 2


def silent(event: object) -> None:
    """Hear of nothing."""


async def participate(address: str, name: str, learner: Learner, **more: Any) -> str:
    connect = in_turn([(address, PLAIN)], 20.0)
    return await take_part(connect, name, learner, None, silent, 30.0, **more)


def learner_in(settings: Settings, number: int) -> Learner:
    """Return a client of four, from 0, of a run with these settings."""
    task = load_task(settings.task, None)
    everything = read_data(task, "train_data", None)
    return learner_of(task, everything, Partition(number, CLIENTS), settings)


async def relayed(settings: Settings, folder: Path, name: str, server: str, each: range) -> Relay:
    """Take part for some of the clients; return the relay once the run is over."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await asyncio.to_thread(folder.mkdir)
    task, connect = load_task(settings.task, None), in_turn([(server, PLAIN)], 20.0)
    learner, ledger = Learner(task, (), settings.seed, state=folder), Ledger(folder)
    relay = Relay(settings, task, learner, ledger, on_listening=port.set_result)

    def session() -> Any:
        return take_part(
            lambda: relay.connected(connect), name, learner, None, silent, 30.0,
            ready=relay.ready, below=relay,
        )  # fmt: skip

    async with asyncio.TaskGroup() as group:
        group.create_task(relay.take_part(session))
        address = f"127.0.0.1:{await port}"
        for number in each:
            own = learner_in(settings, number)
            group.create_task(participate(address, f"client-{number + 1}", own))
    return relay


def federated(folder: Path, relays: int, **flags: Any) -> tuple[Path, list[RoundRecord]]:
    """Run a federation of four clients, through so many relays; return its folder and rounds."""
    records: list[RoundRecord] = []
    senders = relays or CLIENTS
    flags = {"network__heartbeat_interval_s": 0.5, "base": "exact", **flags}
    budget = flags.pop("energy__budget", None)
    with_budget = {} if budget is None else {"energy__budget": budget}

    async def run() -> None:
        settings = live.settings_of(senders, **flags, **with_budget)
        async with live.live_server(
            settings, folder / "root", lambda run, record: records.append(record)
        ) as (_, address):
            if not relays:
                await asyncio.gather(
                    *(
                        participate(address, f"client-{n + 1}", learner_in(settings, n))
                        for n in range(CLIENTS)
                    )
                )
            each = CLIENTS // max(relays, 1)
            below = live.settings_of(each, **flags)
            await asyncio.gather(
                *(
                    relayed(
                        below, folder / f"relay-{number}", f"relay-{number}", address,
                        range(number * each, (number + 1) * each),
                    )
                    for number in range(relays)
                )
            )  # fmt: skip

    (folder / "root").mkdir(parents=True)
    ledger = Ledger(folder / "root")
    ledger.begin({})
    ledger.close()
    asyncio.run(run())
    return folder / "root", records


def model_of(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_unquantized_the_model_is_that_of_direct_clients(tmp_path: Path) -> None:
    directly, _ = federated(tmp_path / "direct", 0, scheme="fp32", rounds=3)
    through, records = federated(tmp_path / "relayed", RELAYS, scheme="fp32", rounds=3)
    direct, relayed = model_of(directly), model_of(through)
    assert direct.keys() == relayed.keys()
    for name, values in direct.items():
        # The mean of means is rounded once more.
        assert abs(values - relayed[name]).max() < 1e-5 * max(1.0, abs(values).max())
    for record in records:
        assert {name: each.clients for name, each in record.relays.items()} == {
            "relay-0": 2, "relay-1": 2,
        }  # fmt: skip
        assert sum(each.examples for each in record.relays.values()) == 1437


def test_the_server_knows_the_joules_of_both_hops_and_keeps_its_budget(tmp_path: Path) -> None:
    budget_j = 0.03
    root, records = federated(
        tmp_path, RELAYS, rounds=8, energy__budget=f"{budget_j}J", energy__radio="constant"
    )
    below = [json.loads((tmp_path / f"relay-{n}" / "run.json").read_text()) for n in range(RELAYS)]
    of_relays = sum(document["summary"]["energy_j"] for document in below)
    assert sum(record.relays_j for record in records) == pytest.approx(of_relays)
    assert 0 < of_relays < sum(record.energy_j for record in records) <= budget_j
    document = json.loads((root / "run.json").read_text())
    assert document["summary"]["relays_j"] == pytest.approx(of_relays)
    assert document["rounds"][-1]["relays"]["relay-1"]["clients"] == 2
    # A relay tests nothing, and says of no model that it is not finite.
    assert {each["test_loss"] for each in below[0]["rounds"]} == {None}
    assert records[-1].test_accuracy > 0.5


def test_a_budget_of_bytes_says_which_hop_it_is_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federated(tmp_path, RELAYS, rounds=2, energy__budget="1J,5MB")
    [said] = {each for each in caplog.messages if "the hop to this server" in each}
    assert said == (
        "energy.budget: 5 MB are for the hop to this server alone; what the clients of relay-0, "
        "relay-1 send and receive takes nothing of them"
    )


def test_clients_tests_of_the_model_pass_through_relays(tmp_path: Path) -> None:
    flags = {"task": "system.number_task:held_back", "scheme": "fp32", "rounds": 3}
    _, directly = federated(tmp_path / "direct", 0, **flags)
    _, through = federated(tmp_path / "relayed", RELAYS, **flags)
    for direct, relayed in zip(directly, through, strict=True):
        assert set(relayed.client_metrics) == {"loss", "mae", "r2"}
        assert relayed.client_metrics == pytest.approx(direct.client_metrics, rel=1e-4)
        # Of its 15 examples each client holds 4 back. A relay tells their mean, and of how many.
        held_back = {name: each.examples for name, each in relayed.validations.items()}
        assert held_back == {"relay-0": 8, "relay-1": 8}
    assert through[0].validations["relay-0"] != through[0].validations["relay-1"]


def test_a_relay_with_another_seed_is_told_the_run_s(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(_with_seeds(tmp_path, 1, 2))
    assert "the seed of the run is 1, that of this relay 2" in str(raised.value.exceptions[0])
    assert isinstance(raised.value.exceptions[0], UserError)


@pytest.mark.parametrize("scheme", ["topk", "stc"])
def test_sparse_updates_go_through_relays(tmp_path: Path, scheme: str) -> None:
    flags = {"scheme": scheme, f"{scheme}__fraction": 0.05, "rounds": 12}
    _, records = federated(tmp_path, RELAYS, **flags)
    for folder in ("root", "relay-0"):
        document = json.loads((tmp_path / folder / "run.json").read_text())
        # A sign or a few bits of each twentieth value, and where it is.
        assert 0 < max(each["uplink_bits"] for each in document["rounds"]) < 1
    # What a relay left out of its updates came with later ones.
    assert records[-1].test_accuracy > 0.8


def test_a_masked_run_takes_no_relay(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(_masked(tmp_path))
    [error] = raised.value.exceptions
    assert isinstance(error, UserError)
    assert "privacy.secure_aggregation: this run takes no relay, and relay is one" in str(error)


async def _masked(folder: Path) -> None:
    (folder / "root").mkdir()
    settings = live.settings_of(3, privacy__secure_aggregation=True)
    async with live.live_server(settings, folder / "root") as (_, address):
        await relayed(live.settings_of(1), folder / "relay", "relay", address, range(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coding.common_grid", True),
        ("privacy.secure_aggregation", True),
        ("privacy.epsilon", 8.0),
    ],
)
def test_a_relay_masks_nothing(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{name}: a relay sees the updates of its clients"):
        run_relay(config=None, out=tmp_path, flags={name: value}, assignments=[])


async def _with_seeds(folder: Path, of_run: int, of_relay: int) -> None:
    (folder / "root").mkdir()
    settings = live.settings_of(1, seed=of_run, rounds=1)
    async with live.live_server(settings, folder / "root") as (_, address):
        below = live.settings_of(1, seed=of_relay)
        await relayed(below, folder / "relay", "relay", address, range(0))


# ---- processes, killed --------------------------------------------------------------------------

ROUNDS = 18
FAST = "--set network.heartbeat_interval_s=0.5 --set network.return_wait_s=2"


def start_relay(commands: Commands, name: str, server: int, port: int) -> Running:
    return commands.start(
        *f"relay --task digits --server 127.0.0.1:{server} --name {name} --port {port} "
        f"--clients 2 --out {name} {FAST}".split()
    )


def wait_until(happened: Callable[[], bool], running: Running) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert running.process.poll() is None, running.err.read_text()
        assert time.monotonic() < end, running.out.read_text()
        time.sleep(0.05)


def said(running: Running) -> str:
    """Return what it said, not broken into lines."""
    return " ".join(running.out.read_text().split())


def rounds_done(folder: Path) -> int:
    # It is about to be made.
    with suppress(sqlite3.OperationalError):
        uri = f"file:{folder / 'ledger.sqlite'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as ledger:
            return int(ledger.execute("SELECT MAX(round) FROM rounds").fetchone()[0] or 0)
    return 0


@pytest.mark.slow
def test_a_relay_that_is_killed_twice_costs_its_clients_rounds_and_not_the_run(
    commands: Commands,
) -> None:
    root, first, second = free_port(), free_port(), free_port()
    folder = commands.folder

    def slowly(*arguments: Any) -> float:
        time.sleep(0.4)
        return train_classifier(*arguments)

    task = replace(load_task("digits", None), train=slowly)
    server = commands.start(
        *f"server --task digits --clients 2 --rounds {ROUNDS} --port {root} --out root".split(),
        *FAST.split(),
    )
    relays = [
        start_relay(commands, "near", root, first),
        start_relay(commands, "far", root, second),
    ]
    clients = [
        fedaq.Client(
            task,
            # One of the first relay's clients knows the other one, too.
            ",".join(f"127.0.0.1:{port}" for port in knows),
            partition=f"{n}/6",
            give_up_after_s=60,
        )
        for n, knows in enumerate([(first, second), (first,), (first,), *[(second,)] * 3], 1)
    ]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            number = rounds_done(folder / "near") + 2
            wait_until(lambda number=number: rounds_done(folder / "near") >= number, relays[0])  # type: ignore[misc]
            relays[0].process.kill()
            relays[0].process.wait()
            relays[0] = start_relay(commands, "near", root, first)
        assert server.wait(PATIENCE_S).code == 0, server.err.read_text()
        assert [relay.wait(PATIENCE_S).code for relay in relays] == [0, 0]
    finally:
        for client in clients:
            client.stop()
        for thread in threads:
            thread.join(PATIENCE_S)
    document = json.loads((folder / "root" / "run.json").read_text())
    rounds = document["rounds"]
    assert [each["round"] for each in rounds] == list(range(1, ROUNDS + 1))
    behind = [sum(relay["clients"] for relay in each["relays"].values()) for each in rounds]
    # Nobody was lost, wherever they are now, and the other relay's went on all the time.
    assert behind[-1] == 6, behind
    assert min(behind) >= 2, behind
    assert rounds[-1]["relays"]["near"]["clients"] in (2, 3)
    assert document["summary"]["final_accuracy"] > 0.85
    assert re.search(r"relay near, server", relays[0].out.read_text())


def test_a_relay_lets_its_clients_go_while_its_server_is_gone_and_goes_on_with_it(
    commands: Commands,
) -> None:
    root, port = free_port(), free_port()
    folder, rounds = commands.folder, 16
    start = f"server --task digits --clients 1 --rounds {rounds} --port {root} --resume root {FAST}"
    server = commands.start(*start.split())
    relay = start_relay(commands, "near", root, port)
    clients = [
        commands.start(*f"client --task digits --server 127.0.0.1:{port} --partition {n}/2".split())
        for n in (1, 2)
    ]
    wait_until(lambda: rounds_done(folder / "root") >= 2, server)
    server.process.kill()
    server.process.wait()
    wait_until(lambda: "its clients are let go" in said(relay), relay)
    wait_until(lambda: "the relay lost its server" in said(clients[0]), clients[0])
    server = commands.start(*start.split())
    for each in (server, relay, *clients):
        assert each.wait(PATIENCE_S).code == 0, each.err.read_text()
    document = json.loads((folder / "root" / "run.json").read_text())
    assert [each["round"] for each in document["rounds"]] == list(range(1, rounds + 1))
    # At most the round in which the server was killed is lost to the relay.
    assert sum(each["clients"] for each in document["rounds"]) >= rounds - 1
    assert document["rounds"][-1]["relays"]["near"]["clients"] == 2
