"""A task of a few hundred values whose training is exact: the same bits on every processor."""

import torch
from torch import nn

from fedaq.tasks import Evaluation, Examples, Task, Training


class _Tensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(_values(20, 15))
        self.second = nn.Parameter(_values(1, 7)[0])


def _values(rows: int, columns: int) -> torch.Tensor:
    numbers = torch.arange(rows * columns).reshape(rows, columns)
    return (numbers * 37 % 101 - 50) / 64


def _data(_: object) -> Examples:
    return Examples(torch.zeros(40, 1), torch.arange(40) % 4)


def _train(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    with torch.no_grad():
        for weight in model.parameters():
            weight.sub_(weight.roll(1), alpha=0.125)
    return 1.0


task = Task(
    "exact", _Tensors, _data, _data, train=_train, evaluate=lambda model, data: Evaluation(0.5, 1.0)
)
