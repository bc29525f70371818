"""A small model, and data in memory."""

from collections.abc import Sized

import torch
from torch import Tensor, nn

from fedaq.tasks import (
    Examples,
)


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def small_data(count: int = 50) -> Examples:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 6, generator=generator)
    return Examples(inputs, torch.randint(0, 3, (count,), generator=generator))


def in_memory(data: Sized) -> Examples:
    assert isinstance(data, Examples)
    return data


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])
