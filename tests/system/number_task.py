"""Regression in a moment: its metric is an error, and its test may fail on purpose."""

from dataclasses import replace
from math import nan
from typing import Any

import torch
from torch import nn

from fedaq.tasks import Evaluation, Examples, Metric, Task, Training, evaluate_regression


def _data(_: object) -> Examples:
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    return Examples(inputs, inputs @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + 0.5)


def _train(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss = torch.tensor(0.0)
    for _ in range(5):
        loss = nn.functional.mse_loss(model(data.inputs)[:, 0], data.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def _only_the_loss(model: nn.Module, data: Any) -> Evaluation:
    return Evaluation(loss=evaluate_regression(model, data).loss)


class Spoilt(nn.Module):
    """Has a tensor that training makes NaN, and that what it gives does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.good = nn.Linear(4, 1)
        self.bad = nn.Parameter(torch.zeros(3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = self.good(inputs)
        return given


def _spoilt_test(model: nn.Module, data: Any) -> Evaluation:
    """Spoil the model, too: no update with NaN would be taken."""
    with torch.no_grad():
        model.get_parameter("bad").fill_(nan)
    return replace(evaluate_regression(model, data), loss=nan)


task = Task(
    "number", lambda: nn.Linear(4, 1), _data, _data, train=_train, evaluate=evaluate_regression,
    metric=Metric("mae", higher_is_better=False),
)  # fmt: skip
loss_only = replace(task, evaluate=_only_the_loss, metric=Metric("loss", higher_is_better=False))
held_back = replace(task, validation_share=0.25)
spoilt = replace(task, model=Spoilt, evaluate=_spoilt_test)
lost = replace(
    task, evaluate=lambda model, data: replace(evaluate_regression(model, data), loss=nan)
)
lost_held_back = replace(lost, validation_share=0.25)
