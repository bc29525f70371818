"""The model of a run with masks is that of the same run without, whichever way the sides meet."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import fedaq
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
        assert ours.uplink_payload_bytes > 2 * theirs.uplink_payload_bytes
