"""What devices may spend in whole runs: nobody overspends, and who is empty leaves."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedaq.energy.cost import RadioCost
from fedaq.errors import UserError
from fedaq.settings import load_settings
from fedaq_lab.local import federate
from fedaq_server.accounts import Accounts, Party
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run
from system.live import learner, live_server, settings_of, take_part

BATTERIES = {"client-1": 1.5e-3, "client-2": 4e-3, "client-3": 9e-3, "client-4": 1.0}
ROUNDS = 12
SMALL = ("task=digits", "clients=4", f"rounds={ROUNDS}", "min_clients=1")


def run(folder: Path, *assignments: str) -> dict[str, Any]:
    settings = load_settings(environment={}, assignments=(*SMALL, *assignments))
    folder.mkdir(exist_ok=True)
    asyncio.run(federate(Run(settings, Ledger(folder), lambda record: None)))
    document: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return document


def written(batteries: dict[str, float]) -> str:
    return ",".join(f"{name}:{joules}J" for name, joules in batteries.items())


def bytes_of(folder: Path) -> dict[str, dict[str, int]]:
    """Payload bytes of each client by direction, from the ledger."""
    found: dict[str, dict[str, int]] = {}
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as database:
        for name, way, total in database.execute(
            "SELECT client, direction, SUM(payload_bytes) FROM transfers GROUP BY 1, 2"
        ):
            found.setdefault(name, {})[way] = total
    return found


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("energy.budget=40mJ",),
        ("energy.budget=60kB", "energy.broadcast=true"),
        ("scheme=fixed", "fixed.uplink_bits=2"),
        ("scheme=feddq", "coding.entropy=true"),
        ("scheme=stc", "stc.fraction=1/20"),
        ("scheme=topk", "topk.fraction=1/20"),
        ("coding.entropy=false", "coding.downlink=model"),
    ],
    ids=["alone", "joules", "bytes", "fixed", "feddq", "stc", "topk", "packed"],
)
def test_no_battery_is_overspent(more: tuple[str, ...], tmp_path: Path) -> None:
    costs = ("energy.uplink.j_per_bit=1e-7", "energy.receive.j_per_bit=2e-8")
    document = run(tmp_path, f"energy.device_budget={written(BATTERIES)}", *costs, *more)
    moved = bytes_of(tmp_path)
    for name, joules in BATTERIES.items():
        ways = moved.get(name, {})
        spent = 8 * (1e-7 * ways.get("uplink", 0) + 2e-8 * ways.get("downlink", 0))
        assert spent <= joules * (1 + 1e-12)
        if spent:
            stated = document["budgets"]["devices"][name]["J"]
            assert stated == {"budget": joules, "spent": pytest.approx(spent, rel=1e-9)}


def test_who_is_empty_leaves_and_the_run_goes_on(tmp_path: Path) -> None:
    document = run(tmp_path, "energy.device_budget=client-1:0.4mJ")
    [empty] = document["budgets"]["empty"]
    assert empty["name"] == "client-1"
    assert 1 <= empty["round"] < ROUNDS
    assert "the budget of client-1, 0.0004 J, has" in empty["reason"]
    rounds = document["rounds"]
    assert len(rounds) == ROUNDS
    assert rounds[empty["round"] - 1]["declined"] == {"empty": 1}
    assert [each["clients"] for each in rounds[empty["round"] :]] == [3] * (ROUNDS - empty["round"])


def test_a_run_whose_devices_are_all_empty_is_over(tmp_path: Path) -> None:
    document = run(tmp_path, "energy.device_budget=2mJ")
    assert document["finished"]
    assert len(document["rounds"]) <= ROUNDS
    assert all(u["J"]["spent"] <= 2e-3 for u in document["budgets"]["devices"].values())


@pytest.mark.parametrize(
    ("assignment", "why"),
    [
        ("energy.device_budget=1uJ", "client-1, 1e-06 J, does not pay for one round: at least"),
        ("energy.budget=10B", "energy.budget = 10 B does not pay .*: its headers alone take 192 B"),
    ],
)
def test_too_small_a_budget_is_refused_before_the_first_byte(
    assignment: str, why: str, tmp_path: Path
) -> None:
    settings = load_settings(environment={}, assignments=(*SMALL, assignment))
    ledger = Ledger(tmp_path)
    with pytest.raises(UserError, match=why):
        asyncio.run(federate(Run(settings, ledger, lambda record: None)))
    assert ledger.rounds_done == 0


@pytest.mark.parametrize(
    ("budget", "unit", "amount"),
    [("100kB", "B", 1e5), ("0.05EUR", "EUR", 0.05), ("80mJ,1MB", "J", 0.08)],
)
def test_a_budget_of_the_run_is_spent_and_no_more(
    budget: str, unit: str, amount: float, tmp_path: Path
) -> None:
    document = run(tmp_path, f"energy.budget={budget}", "energy.tariff=0.5")
    assert 0.9 * amount <= document["budgets"]["run"][unit]["spent"] <= amount
    total = sum(each for ways in bytes_of(tmp_path).values() for each in ways.values())
    took = {"B": total, "EUR": 0.5e-6 * total, "J": 8e-7 * total}[unit]
    assert document["budgets"]["run"][unit]["spent"] == pytest.approx(took, rel=1e-9)


def test_budgets_of_run_and_devices_hold_at_once(tmp_path: Path) -> None:
    document = run(tmp_path, "energy.budget=100kB", "energy.device_budget=1J,client-1:3mJ")
    assert document["budgets"]["run"]["B"]["spent"] <= 1e5
    assert document["budgets"]["devices"]["client-1"]["J"]["spent"] <= 3e-3
    assert document["summary"]["final_accuracy"] > 0.9


def test_the_less_of_what_is_stated_and_given_holds() -> None:
    accounts = Accounts(stated={"shed": {"J": 2.0, "B": 5e6}})
    assert accounts.limits("shed") == {"J": 2.0, "B": 5e6}
    settings = load_settings(environment={}, assignments=["energy.device_budget=1J"])
    accounts = Accounts.restored(settings, {"stated": {"shed": {"J": 2.0}, "barn": {"J": 0.5}}})
    assert [accounts.limits(name)["J"] for name in ("shed", "barn", "hut")] == [1.0, 0.5, 1.0]


def test_accounts_outlive_a_restart_to_the_byte() -> None:
    settings = load_settings(environment={}, assignments=["energy.device_budget=1J,1MB"])
    accounts = Accounts.restored(settings, {})
    cost = RadioCost(1.1e-7, 3e-7, 0.7e-7)
    accounts.charge({"shed": cost}, {"shed": 333}, {"shed": 77}, 0.1)
    accounts.leaves("shed", 3, "it is empty")
    kept = json.loads(json.dumps(accounts.state()))
    assert Accounts.restored(settings, kept) == accounts
    assert accounts.left("shed", "B") == 1e6 - 410


def test_what_can_be_sent_is_what_is_left() -> None:
    settings = load_settings(environment={}, assignments=["energy.device_budget=1000B,1mJ"])
    accounts = Accounts.restored(settings, {})
    cost = RadioCost(1e-7, 1e-7, 1e-7)
    assert accounts.most_up("shed", cost, 100) == 900
    assert accounts.most_up("shed", RadioCost(2e-7, 1e-7, 0.0), 100) == 625
    assert accounts.pays("shed", cost, 500, 500) == ""
    assert "has" not in accounts.pays("shed", cost, 500, 501)
    purses = accounts.purses({"shed": Party(cost, 40)}, 10, 0.5, 1e-7, 0.0)
    assert {p.unit: (p.left, p.rounds, p.fixed) for p in purses} == {
        "B": (1000.0, 5.0, 40.0),
        "J": (pytest.approx(1e-3), 5.0, pytest.approx(40 * 8e-7)),
    }


def test_what_training_takes_is_beside_the_radio(tmp_path: Path) -> None:
    document = run(tmp_path, "energy.training_w=2", "rounds=2")
    plain = run(tmp_path / "plain", "rounds=2")
    assert all(each["training_j"] > 0 for each in document["rounds"])
    assert document["summary"]["energy_j"] == plain["summary"]["energy_j"]
    assert "training_j" not in plain["summary"]


def test_a_client_states_its_own_over_grpc(tmp_path: Path) -> None:
    settings = settings_of(2, rounds=6, task="digits")

    async def live() -> Run:
        async with (
            live_server(settings, tmp_path) as (run, address),
            asyncio.TaskGroup() as group,
        ):
            for number, budget in enumerate(({"J": 3e-4}, {})):
                group.create_task(
                    take_part(address, f"client-{number}", learner(number, 2), budget=budget)
                )
        return run

    accounts = asyncio.run(live()).accounts
    assert accounts.stated == {"client-0": {"J": 3e-4}}
    assert accounts.empty.keys() == {"client-0"}
    assert accounts.devices["client-0"]["J"] <= 3e-4
