"""A task whose model is tensors that nobody trains."""

import torch
from torch import nn

from fedaq.tasks import Evaluation, Examples, Task, Training


class _Tensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(100, 301))
        self.second = nn.Parameter(torch.randn(7))
        self.third = nn.Parameter(torch.randn(50_000))


def _data(_: object) -> Examples:
    return Examples(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))


def _train(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.99)
    return 1.0


task = Task(
    "idle", _Tensors, _data, _data, train=_train, evaluate=lambda model, data: Evaluation(0.0, 1.0)
)
