"""Kinds of models that torch alone makes, small, for the digits."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class Scores(nn.Module):
    """A module whose scores are float32, whatever it computes in."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = inner.to(dtype)
        self.dtype = dtype

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.inner(inputs.to(self.dtype))
        return scores.float()


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def convolutional(norm: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), norm(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), norm(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def with_batch_norm() -> nn.Module:
    return convolutional(nn.BatchNorm2d)


def with_group_norm() -> nn.Module:
    return convolutional(lambda channels: nn.GroupNorm(4, channels))


def with_instance_norm() -> nn.Module:
    return convolutional(
        lambda channels: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)
    )


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.cells = kind(8, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.head(self.cells(rows)[0].mean(dim=1))
        return scores


def lstm() -> nn.Module:
    return Recurrent(nn.LSTM)


def gru() -> nn.Module:
    return Recurrent(nn.GRU)


class Bag(nn.Module):
    """Sums a vector for each pixel and its brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(64 * 17, 24, mode="sum", sparse=True)
        self.bag.weight.data.mul_(0.1)
        self.head = nn.Linear(24, 10)

    def forward(self, brightness: Tensor) -> Tensor:
        scores: Tensor = self.head(torch.tanh(self.bag(brightness + 17 * torch.arange(64))))
        return scores


class Encoder(nn.Module):
    """Attends to the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.place = nn.Parameter(0.02 * torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, 10)

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layers(self.embed(rows) + self.place).mean(dim=1))
        return scores


def tied() -> nn.Module:
    module = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
        nn.Linear(32, 10),
    )  # fmt: skip
    first, second = module[2], module[4]
    second.weight = first.weight
    return module


def weight_norm() -> nn.Module:
    module = plain()
    for layer in (module[0], module[2]):  # type: ignore[index]
        parametrizations.weight_norm(layer)
    return module


def spectral_norm() -> nn.Module:
    module = plain()
    for layer in (module[0], module[2]):  # type: ignore[index]
        parametrizations.spectral_norm(layer)
    return module


def bfloat16() -> nn.Module:
    return Scores(plain(), torch.bfloat16)


def float16() -> nn.Module:
    return Scores(plain(), torch.float16)


def float64() -> nn.Module:
    return Scores(plain(), torch.float64)


class Complex(nn.Module):
    """Has complex weights in its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 32, dtype=torch.complex64) / 8)
        self.head = nn.Linear(32, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head((inputs.to(torch.complex64) @ self.weight).abs())
        return scores


def compiled() -> nn.Module:
    """Without a C compiler: what matters here are the names."""
    module: Any = torch.compile(plain(), backend="eager")
    return module  # type: ignore[no-any-return]


def parallel() -> nn.Module:
    return nn.DataParallel(with_batch_norm())


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(10))


def quantize_dynamic() -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    module: nn.Module = quantize_dynamic(plain(), {nn.Linear})
    return module


class Int8Linear(nn.Module):
    """Weights of 8 bits that stay, and a low-rank change that is learned."""

    codes: Tensor
    scale: Tensor

    def __init__(self, inputs: int, outputs: int, rank: int = 8) -> None:
        super().__init__()
        weight = nn.Linear(inputs, outputs).weight.detach()
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("codes", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.a = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.b = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.codes * self.scale + self.b @ self.a
        return nn.functional.linear(inputs, weight)


def int8_base() -> nn.Module:
    return nn.Sequential(
        Int8Linear(64, 64), nn.ReLU(), Int8Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


class WithAverage(nn.Module):
    """Is tested with an average of its weights over time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        for name, value in [*self.average.named_parameters()]:
            owner, _, own = name.rpartition(".")
            layer = self.average.get_submodule(owner)
            del layer._parameters[own]
            layer.register_buffer(own, value.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            scores: Tensor = self.average(inputs)
            return scores
        with torch.no_grad():
            pairs = zip(self.average.buffers(), self.net.parameters(), strict=True)
            for average, weight in pairs:
                average.lerp_(weight, 0.05)
        scores = self.net(inputs)
        return scores


class WithObservers(nn.Module):
    """Trains for 8-bit codes: rounds its activations as they will be."""

    def __init__(self) -> None:
        super().__init__()
        from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

        observe = FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        )
        self.layers = nn.Sequential(
            observe(), nn.Linear(64, 64), nn.ReLU(), observe(), nn.Linear(64, 10)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.layers(inputs)
        return scores


def observing() -> nn.Module:
    module = WithObservers()
    with torch.no_grad():
        module(torch.rand(1, 64))
    return module


class EmptyAndScalar(nn.Module):
    """Has a temperature, an unused table without rows, and an empty buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.table = nn.Embedding(0, 8)
        self.register_buffer("nothing", torch.empty(0))

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.net(inputs) * self.temperature
        return scores


class ExtraState(nn.Module):
    """Keeps a number in its state."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()
        self.steps = 0

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.net(inputs)
        return scores

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]
