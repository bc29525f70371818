"""Many clients that take turns with few learners learn as those that have one each."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedaq.settings import Settings
from fedaq.tasks import Task, Training, TrainingContext, load_task, read_data, train_classifier
from fedaq.tasks.partition import Partition
from fedaq_client.learners import learner_of
from fedaq_lab import local, pools, population
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run
from system.live import settings_of

CLIENTS = 6


class Counting(nn.Module):
    """Its output depends on a counter that does not travel."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inner(inputs.flatten(1))
        if self.training:
            self.calls += 1
        return outputs * (1 + 0.01 * self.calls)


def train(
    model: nn.Module, data: Any, training: Training, seed: int, context: TrainingContext
) -> float:
    """Step further with every round that this client has taken part in."""
    rounds = context.state.get("rounds", 0) + 1
    context.state["rounds"] = rounds
    rate = training.learning_rate * (1 + 0.1 * rounds)
    return train_classifier(model, data, replace(training, learning_rate=rate), seed)


def own_task() -> Task:
    return replace(load_task("digits", None), model=Counting, train=train, validation_share=0.2)


@contextmanager
def one_each(task: Task, settings: Settings, *_: object) -> Iterator[list[local.Member]]:
    everything = read_data(task, "train_data", None)
    parts = [Partition(index, settings.clients) for index in range(settings.clients)]
    yield [
        local.Member(f"client-{number}", learner_of(task, everything, part, settings))
        for number, part in enumerate(parts, 1)
    ]


def model_of(folder: Path, **flags: Any) -> tuple[bytes, list[Any]]:
    folder.mkdir()
    settings = settings_of(CLIENTS, rounds=6, clients_per_round=3, **flags)
    run = Run(settings, Ledger(folder), lambda record: None, own_task())
    asyncio.run(local.federate(run))
    told = [(record.train_loss, record.uplink_payload_bytes) for record in run.records]
    return (folder / "model.safetensors").read_bytes(), told


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"energy__budget_j": 0.05},  # some tensors are not sent
        {"scheme": "fp32"},
        {"scheme": "fixed", "partition__kind": "dirichlet"},
    ],
    ids=str,
)
def test_learners_in_common_give_the_same_model(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all that clients keep lies on the disk."""
    monkeypatch.setattr(pools, "LEARNERS", 2)
    monkeypatch.setattr(population, "MEMORY_BYTES", 100)
    in_common = model_of(tmp_path / "common", **flags)
    assert not list((tmp_path / "common").glob("clients-*"))
    monkeypatch.setattr(local, "_members", one_each)
    assert in_common == model_of(tmp_path / "own", **flags)


def test_what_clients_hold_alike_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[population.Population] = []

    class Seen(population.Population):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(local, "Population", Seen)
    run = Run(settings_of(8, rounds=2), Ledger(tmp_path), lambda record: None)
    asyncio.run(local.federate(run))
    assert [each.models for each in made] == [1]
