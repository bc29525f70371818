"""A task whose model has a million parameters and whose training adds noise."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedaq.tasks import Evaluation, Examples, Task, Training

# Neither width nor count is a multiple of 8, so padding and partial groups occur.
SHAPES = ((999, 1000), (997,), (3,))


class Weights(nn.Module):
    """Tensors without a network around them."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors = nn.ParameterList(0.1 * torch.randn(shape) for shape in SHAPES)


def _train(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    return 1.0


def _evaluate(model: nn.Module, data: Any) -> Evaluation:
    return Evaluation(accuracy=0.5, loss=1.0)


def _data(path: Path | None) -> Examples:
    return Examples(torch.zeros(10, 1), torch.zeros(10, dtype=torch.int64))


task = Task("noise", Weights, _data, _data, train=_train, evaluate=_evaluate)
