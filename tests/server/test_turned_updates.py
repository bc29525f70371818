"""Updates that are turned against those of the others."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaq_client.training import Learner
from server.learners import federate_learners
from system.live import settings_of


class Turned(Learner):
    """Sends the opposite of what it learned, and more of it."""

    def train(self, *arguments: Any, **options: Any) -> float:
        loss = super().train(*arguments, **options)
        np.multiply(self.weights, -8, self.weights)
        return loss


def accuracy_under_attack(folder: Path, hostile: int, aggregation: str, **flags: Any) -> float:
    clients = 10
    folder.mkdir()
    settings = settings_of(
        clients, scheme="fixed", rounds=8, aggregation=aggregation, limits__norm_factor=0, **flags
    )

    kinds = [Turned] * hostile + [Learner] * (clients - hostile)
    return asyncio.run(federate_learners(folder, settings, kinds)).records[-1].test_accuracy


@pytest.mark.parametrize("aggregation", ["median", "trimmed_mean"])
@pytest.mark.parametrize("flags", [{}, {"coding__downlink": "difference"}], ids=["model", "diff"])
def test_two_of_ten_that_turn_their_updates_do_not_harm_a_robust_run(
    aggregation: str, flags: dict[str, Any], tmp_path: Path
) -> None:
    alone = accuracy_under_attack(tmp_path / "alone", 0, "mean", **flags)
    held = accuracy_under_attack(tmp_path / "held", 2, aggregation, **flags)
    assert held > alone - 0.05


def test_two_of_ten_that_turn_their_updates_harm_a_mean(tmp_path: Path) -> None:
    alone = accuracy_under_attack(tmp_path / "alone", 0, "mean")
    harmed = accuracy_under_attack(tmp_path / "harmed", 2, "mean")
    assert harmed < alone - 0.3
