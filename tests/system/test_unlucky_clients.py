"""Clients that fail, or whose codes are coarse: neither costs them or others more than it must."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import odd_models
from fedaq import tasks
from fedaq.tasks import Task, train_classifier
from fedaq.tasks.digits import task as digits
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from system.live import settings_of

CLIENTS, ROUNDS = 4, 6


def records_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, task: Task, **flags: Any
) -> list[RoundRecord]:
    monkeypatch.setattr(odd_models, "odd", task, raising=False)
    monkeypatch.setitem(tasks.BUILT_IN, "own", "odd_models:odd")
    folder.mkdir()
    run = Run(settings_of(CLIENTS, task="own", **flags), Ledger(folder), lambda record: None)
    asyncio.run(federate(run))
    return run.records


def failing_from(first: int) -> Callable[..., float]:
    """Return a training that one client of four fails from a round on."""
    calls = 0

    def train(model: nn.Module, data: Any, training: Any, seed: int) -> float:
        nonlocal calls
        calls += 1
        loss = train_classifier(model, data, training, seed)
        if calls % CLIENTS == 0 and calls > CLIENTS * (first - 1):
            with torch.no_grad():
                next(model.parameters()).fill_(nan)
        return loss

    return train


@pytest.mark.parametrize("flags", [{}, {"energy__budget_j": 0.3}], ids=str)
def test_a_client_whose_training_fails_is_sent_nothing_twice(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"limits__strikes": 100, "rounds": ROUNDS, **flags}
    task = replace(digits, train=failing_from(2))
    records = records_of(tmp_path / "failing", monkeypatch, task, **limits)
    assert len(records) == ROUNDS
    assert [record.left_out for record in records] == [0, 1, 1, 1, 1, 1]
    assert [record.catch_up_payload_bytes for record in records] == [0] * ROUNDS


@pytest.mark.parametrize("budget_j", [0.01, 0.03, 0.1])
def test_coarse_codes_are_not_taken_for_an_attack(
    budget_j: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded to coarse steps, an honest update has a norm many times its own."""
    records = records_of(
        tmp_path / "coarse", monkeypatch, digits, rounds=20, energy__budget_j=budget_j
    )
    assert records
    assert all(record.left_out == 0 for record in records)
