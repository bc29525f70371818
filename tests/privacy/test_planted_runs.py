"""Many small runs, in half of which a client is planted: whether the last model tells which.

The client sends the longest update that it may, in every round, and all others send zeros. How
often a threshold takes one kind of run for the other bounds epsilon from below.
"""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fedaq.privacy import noise
from fedaq.tasks import Evaluation, Examples, Task
from fedaq_client import masked as of_clients
from fedaq_client.training import Learner
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run
from privacy.bounds import least_epsilon
from privacy.federation import settings_of

RUNS, CLIENTS, ROUNDS, VALUES = 200, 3, 2, 4
EPSILON, DELTA = 2.0, 1e-3
# Nearer to what is planted than to nothing, where false alarms are few if there is little noise.
THRESHOLD = 0.75 * ROUNDS
CHANCE = 1e-4


class Few(nn.Module):
    """A model that begins with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(VALUES))


DATA = Examples(torch.zeros(CLIENTS, 1), torch.zeros(CLIENTS, dtype=torch.int64))
TASK = Task(
    "few", Few, lambda _: DATA, lambda _: DATA, evaluate=lambda model, data: Evaluation(0.5, 1.0)
)


def moved(folder: Path, *, masked: bool) -> float:
    """Return how far a run went in the direction that is planted, in updates of one client."""
    settings = settings_of(
        CLIENTS, rounds=ROUNDS, privacy__epsilon=EPSILON, privacy__delta=DELTA, privacy__clip=1.0,
        privacy__secure_aggregation=masked, fedaq__uplink_resolution=None,
    )  # fmt: skip
    folder.mkdir()
    with closing(Ledger(folder)) as ledger:
        ledger.begin(settings.model_dump(mode="json"))
        run = Run(settings, ledger, lambda record: None, TASK)
        asyncio.run(federate(run))
        assert [record.clients for record in run.records] == [CLIENTS] * ROUNDS
        far: float = run.federation.model.sum() * CLIENTS / VALUES**0.5
        return far


def alarms(
    folder: Path, patched: pytest.MonkeyPatch, *, planted: bool, masked: bool
) -> NDArray[np.bool_]:
    """Return in which of many runs there seems to be a planted client."""

    def trained(self: Learner, training: Any, seed: int, name: str, *_: Any, **more: Any) -> float:
        self.weights[:] += 10.0 * (planted and name == "client-1")
        return 1.0

    patched.setattr(Learner, "train", trained)
    folder.mkdir()
    found = [moved(folder / str(number), masked=masked) for number in range(RUNS)]
    return np.array(found) > THRESHOLD


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True], ids=["seen", "masked"])
def test_runs_tell_no_more_of_a_client_than_epsilon_allows(
    masked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false, true = (
        alarms(tmp_path / str(planted), monkeypatch, planted=planted, masked=masked)
        for planted in (False, True)
    )
    # What is planted is there, and is seen now and then.
    assert true.mean() > false.mean()
    assert least_epsilon(false, true, DELTA, CHANCE) <= EPSILON


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True], ids=["seen", "masked"])
def test_runs_tell_more_where_the_noise_is_a_twentieth(
    masked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = noise.discrete_gaussian
    for place in (noise, of_clients):
        monkeypatch.setattr(
            place, "discrete_gaussian", lambda deviation, size: right(deviation / 20, size)
        )
    false, true = (
        alarms(tmp_path / str(planted), monkeypatch, planted=planted, masked=masked)
        for planted in (False, True)
    )
    assert least_epsilon(false, true, DELTA, CHANCE) > EPSILON
