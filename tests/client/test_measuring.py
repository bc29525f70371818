"""A client that is asked for the statistics of the model it holds."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fedaq.codec import statistics
from fedaq.codec.quantizer import Floats
from fedaq.tasks import Task, Training, measure_statistics
from fedaq.tasks.digits import task as digits
from fedaq_client.training import Learner


def learner(task: Task) -> Learner:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 10))

    return Learner(replace(task, model=model), task.train_data(None))


def update(one: Learner, *, measure: bool) -> Floats:
    one.train(Training(), 1, "anna", 2, measure=measure)
    return one.weights.copy()


def test_its_update_has_them_and_is_otherwise_the_same() -> None:
    plain, asked = learner(digits), learner(digits)
    without, update_asked = update(plain, measure=False), update(asked, measure=True)
    own = asked.spec.statistics
    assert update_asked[: own.start].tobytes() == without[: own.start].tobytes()
    unit = statistics.units(asked.spec, asked.held[own], statistics.UPLINK)
    reported = statistics.changed(asked.spec, asked.held[own], update_asked[own], unit)
    fresh = learner(digits)
    measure_statistics(fresh.model, digits.train_data(None), 7)
    mean, variance = (fresh.model.get_buffer(f"1.running_{name}") for name in ("mean", "var"))
    assert np.allclose(reported[:8], mean, atol=0.1 * float(variance.max()) ** 0.5)
    assert np.allclose(reported[8:], variance, rtol=0.1)


def test_nothing_else_of_the_measurement_is_left() -> None:
    plain, asked = learner(digits), learner(digits)
    update(plain, measure=False)
    update(asked, measure=True)
    counted = [one.model.get_buffer("1.num_batches_tracked") for one in (plain, asked)]
    assert torch.equal(*counted)


def test_a_task_that_cannot_measure_reports_what_training_left() -> None:
    def train(module: nn.Module, data: object, training: Training, seed: int) -> float:
        return digits.train(module, data, training, seed)

    own = replace(digits, train=train)
    without, asked = (update(learner(own), measure=measure) for measure in (False, True))
    assert asked.tobytes() == without.tobytes()
