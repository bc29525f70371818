"""What `fedaq check-task` says of broken models: each mistake in one sentence, with the remedy."""

import random
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.checked_tasks import GOOD, OTHER_CLASSES, checked, failing, sentences
from fedaq.cli import checkup
from fedaq_client.cli.task_findings import Kind


class Tied(nn.Module):
    def __init__(self, parameter: Callable[[Any], nn.Parameter]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.last.weight = parameter(self.first.weight)

    def forward(self, inputs: Tensor) -> Any:
        return self.last(self.first(inputs))


def numpy_weights() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.weight.data = torch.from_numpy(np.random.rand(3, 4).astype(np.float32))
    return layer


def not_finite() -> nn.Module:
    layer = nn.Linear(4, 3)
    nn.init.constant_(layer.bias, inf)
    return layer


def frozen(*names: str) -> nn.Module:
    torch_model = GOOD.model()
    for name, weight in torch_model.named_parameters():
        weight.requires_grad = name not in names
    return torch_model


class Counted(nn.Module):
    """Anything with one weight, whose output is made by a function."""

    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight, self.made = nn.Parameter(torch.ones(1)), made

    def forward(self, inputs: Tensor) -> Any:
        return self.made(inputs * self.weight)


MODELS: list[tuple[Callable[[], Any], str]] = [
    (failing, "model() failed: ValueError: no such layer"),
    (lambda: "a model", "model: model() must return a torch.nn.Module, and returned str"),
    (
        lambda: nn.Linear(4, 3).to(torch.float8_e4m3fn),
        "model: tensor weight is torch.float8_e4m3fn, and only floating-point values of 16 bits "
        "and more are averaged; ",
    ),
    (
        nn.ReLU,
        "model: it has no floating-point value to train; let model() return a module with "
        "parameters that have requires_grad",
    ),
    (
        lambda: nn.Linear(4, 3, device="meta"),
        "model: tensor weight is on device meta and has no values; build the model on a device "
        "that has memory",
    ),
    (
        lambda: nn.Linear(4, random.randint(3, 900)),
        "model() returns another model when it is called again: tensor 1 is weight",
    ),
    (
        numpy_weights,
        "model() gives other weights each time (weight): draw them with torch, whose seed is set "
        "before the call, and not with numpy or random, so that all begin alike",
    ),
    (not_finite, "model: tensor bias has NaN or infinity before any training"),
    (
        lambda: Tied(lambda weight: nn.Parameter(weight.data.t())),
        "model: first.weight and last.weight share memory but are not the same view of it, and "
        "would part from one another; .clone() parts them, and to tie weights, give both modules "
        "the same nn.Parameter",
    ),
    (
        lambda: frozen("0.weight", "0.bias", "2.weight", "2.bias"),
        "model: it has no floating-point value to train; let model() return a module with "
        "parameters that have requires_grad",
    ),
    (
        lambda: nn.Linear(5, 3),
        "the model does not take its inputs, float32 32x4, the first number being the batch: "
        "RuntimeError: ",
    ),
    (
        lambda: Counted(lambda inputs: inputs.sum(dim=1)),
        "the model gives 32 for 32 inputs; 32x(number of classes) is needed, or a train and an "
        "evaluate of the task's own",
    ),
    (lambda: Counted(lambda inputs: (inputs, 1)), "the model gives a tuple for 32 inputs; "),
    (
        lambda: Counted(lambda inputs: inputs / 0),
        "the model gives NaN or infinity before any training; look at the inputs",
    ),
    (
        lambda: nn.Linear(4, 2),
        "the training data has labels 0 to 2; the model has 2 outputs, so labels must be 0 to 1",
    ),
]


@pytest.mark.parametrize(("model", "sentence"), MODELS)
def test_wrong_models(model: Callable[[], Any], sentence: str) -> None:
    result = checked(replace(GOOD, model=model))
    assert not result.is_ready
    assert sentences(result, Kind.WRONG)[0].startswith(sentence)


def test_a_task_has_a_name_for_each_output() -> None:
    task = replace(GOOD, classes=("low", "middle", "high"))
    assert checked(task).is_ready
    other = replace(task, model=lambda: nn.Linear(4, 4))
    assert sentences(checked(other), Kind.WRONG) == [OTHER_CLASSES]


def test_what_is_peculiar_is_told_and_not_wrong() -> None:
    def model() -> nn.Module:
        tied = Tied(lambda weight: nn.Parameter(weight.data))
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), tied)

    data = replace(GOOD, model=model)
    result = checked(data)
    assert result.is_ready
    assert sentences(result, Kind.DOUBTFUL) == []
    assert sentences(result, Kind.NOTE) == [
        "1.num_batches_tracked: not sent; each side keeps its own",
        "2.last.weight: tied to a tensor before it, and sent with it",
    ]
    some = checked(replace(GOOD, model=lambda: frozen("0.weight")))
    assert sentences(some, Kind.NOTE) == [
        "0.weight: frozen, so never sent; a client joins if its own are the server's"
    ]


def test_weights_in_another_memory_format_are_fine() -> None:
    def model() -> nn.Module:
        layers = nn.Sequential(nn.Unflatten(1, (2, 2, 1)), nn.Conv2d(2, 3, (2, 1)), nn.Flatten())
        return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    assert not model().get_parameter("1.weight").is_contiguous()
    assert checked(replace(GOOD, model=model)).findings == []


def test_a_model_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "free_memory", lambda: 1000)
    result = checked(GOOD)
    assert result.is_ready
    (sentence,) = sentences(result, Kind.DOUBTFUL)
    assert sentence.startswith("67 parameters: about 0 MB more beside the ")
    assert "; take a smaller model or raise the limit" in sentence
