"""Models of 0.1 to 100 million parameters that do not learn, for benchmarks of the rest.

Their training shrinks every weight, so that there is an update with a range to send.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from fedaq.tasks import Evaluation, Examples, Task, Training

LAYERS = 8
SHRINK = 0.99
WAIT_S = 15.0
SECOND_S = 1.0


Trainer = Callable[[nn.Module, Examples, Training, int], float]


class _Layers(nn.Module):
    """`LAYERS` square matrices and their biases, about `parameters` values in all."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        side = round((parameters / LAYERS) ** 0.5)
        self.layers = nn.ModuleList(nn.Linear(side, side) for _ in range(LAYERS))


def _data(_: object) -> Examples:
    return Examples(torch.zeros(64, 1), torch.zeros(64, dtype=torch.int64))


def _train(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(SHRINK)
    return 1.0


def _train_later(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    time.sleep(WAIT_S)
    return _train(model, data, training, seed)


def _train_a_second(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    time.sleep(SECOND_S)
    return _train(model, data, training, seed)


def _evaluate(model: nn.Module, data: Examples) -> Evaluation:
    return Evaluation(accuracy=0.0, loss=1.0)


def _task(parameters: int, train: Trainer = _train) -> Task:
    return Task(
        name=f"idle-{parameters}",
        model=partial(_Layers, parameters),
        train_data=_data,
        test_data=_data,
        train=train,
        evaluate=_evaluate,
    )


m01 = _task(100_000)
m1 = _task(1_000_000)
# Its rounds are long enough for whoever watches to see every state of a client.
m1_second = _task(1_000_000, _train_a_second)
m5 = _task(5_000_000)
m10 = _task(10_000_000)
m50 = _task(50_000_000)
m100 = _task(100_000_000)
# Leaves time for others to join in the middle of the round.
m50_later = _task(50_000_000, _train_later)
