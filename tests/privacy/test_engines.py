"""The model of a run with masks is that of the same run without, whichever way the sides meet."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from torch import nn

import fedaq
from fedaq.tasks import Task, initial_model
from fedaq.tasks.loading import load_task
from fedaq_lab.pools import LEARNERS
from fedaq_server.records.result import Result

# More than those that take turns where updates are not masked.
CLIENTS, ROUNDS = LEARNERS + 1, 2


def _ran(folder: Path, engine: Any, **options: Any) -> tuple[Result, str]:
    result = fedaq.run(
        "digits", clients=CLIENTS, rounds=ROUNDS, out=folder, engine=engine, progress=False,
        **options,
    )  # fmt: skip
    return result, sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, str]:
    folder = tmp_path_factory.mktemp("seen") / "run"
    return _ran(folder, "local", coding={"common_grid": True})


@pytest.mark.parametrize("engine", ["local", "processes"])
def test_masks_change_nothing_but_the_price(
    tmp_path: Path, engine: str, seen: tuple[Result, str]
) -> None:
    plain, digest = seen
    masked, found = _ran(tmp_path / "run", engine, privacy={"secure_aggregation": True})
    assert found == digest
    for ours, theirs in zip(masked.rounds, plain.rounds, strict=True):
        assert ours.test_accuracy == theirs.test_accuracy
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
        assert ours.clients == CLIENTS
        assert ours.energy_j > theirs.energy_j
        assert ours.uplink_payload_bytes > theirs.uplink_payload_bytes


def _normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


def test_statistics_are_averaged_whole_beside_a_part_of_the_weights(tmp_path: Path) -> None:
    task = replace(load_task("digits", None), model=_normalized)
    chosen: dict[str, Any] = {
        "masked": {"privacy": {"secure_aggregation": True}},
        "seen": {"coding": {"common_grid": True}},
    }
    found = [
        fedaq.run(
            task, clients=3, rounds=3, out=tmp_path / name, engine="local", progress=False,
            **options,
        )
        for name, options in chosen.items()
    ]  # fmt: skip
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("masked", "seen")]
    for name, values in models[0].items():
        assert (values == models[1][name]).all()
    # Of weights, few were sent in three rounds; every mean and variance was.
    start = _start_of(task)
    moved = {name: (values != start[name]).mean() for name, values in models[0].items()}
    assert moved["0.weight"] < 0.6
    assert moved["1.running_mean"] > 0.9
    assert moved["1.running_var"] > 0.9
    assert found[0].rounds[-1].test_accuracy == found[1].rounds[-1].test_accuracy


def _start_of(task: Task) -> dict[str, Any]:
    return {name: value.numpy() for name, value in initial_model(task, 1).state_dict().items()}
