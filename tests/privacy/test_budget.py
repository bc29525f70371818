"""Budgets with masks: keys and shares are paid for, and nothing is overspent."""

import asyncio
from pathlib import Path

import pytest

from fedaq.errors import UserError
from privacy.federation import federate


def test_a_run_ends_before_a_round_that_its_budget_does_not_pay_for(tmp_path: Path) -> None:
    free = asyncio.run(federate(tmp_path / "free", {}, 4, rounds=2))
    budget_j = 2.5 * max(record.energy_j for record in free.records)
    done = asyncio.run(
        federate(tmp_path / "run", {}, 4, rounds=9, energy__budget=f"{budget_j:.9f}J")
    )
    spent_j = sum(record.energy_j for record in done.records)
    assert 1 <= len(done.records) < 9
    assert spent_j <= budget_j
    # All but what no further round could be had for.
    assert budget_j - spent_j < 2 * max(record.energy_j for record in free.records)


def test_a_budget_below_one_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1e-05 J does not pay for one round, whose updates alone"):
        asyncio.run(federate(tmp_path / "run", {}, 4, energy__budget="0.00001J"))


def test_a_device_that_cannot_pay_for_keys_takes_no_part(tmp_path: Path) -> None:
    done = asyncio.run(
        federate(tmp_path / "run", {}, 5, energy__device_budget="client-2:700B", rounds=1)
    )
    assert {transfer.client for transfer in done.transfers} == {
        f"client-{number}" for number in (1, 3, 4, 5)
    }
