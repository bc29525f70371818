"""A good task, and what `fedaq check-task` says of it and of those that it is made into."""

import random
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fedaq.settings import load_settings
from fedaq.tasks import Examples, Task
from fedaq.tasks.partition import WHOLE, Partition
from fedaq_client.cli.task_check import check
from fedaq_client.cli.task_findings import Checked, Kind

GOOD = Task(
    name="good",
    model=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
    train_data=lambda data: examples(40),
    test_data=lambda data: examples(20),
)

OTHER_ORDER = (
    "train_data gives other examples or another order when it is called again: with --partition "
    "some would go to two clients and some to none; sort file names, and draw nothing at random"
)
DOUBTS = (
    "train gives another update from the same start and seed; draw with the seed that it is "
    "given, or runs cannot be repeated"
)
OTHER_CLASSES = "the task states 3 classes; the model has 4 outputs, one for each is needed"
NO_TEST_DATA = "no test data here, which only the server needs: task x: --data DIR must hold a.csv"


def examples(count: int) -> Examples:
    inputs = torch.arange(4.0 * count).reshape(count, 4).sin()
    return Examples(inputs, torch.arange(count) % 3)


def changed(**changes: Any) -> Examples:
    return replace(examples(40), **changes)


def checked(task: Task, part: Partition = WHOLE, **flags: Any) -> Checked:
    names = {name.replace("__", "."): value for name, value in flags.items()}
    return check(task, load_settings(environment={}, flags=names), part)


def sentences(result: Checked, kind: Kind) -> list[str]:
    return [finding.sentence for finding in result.findings if finding.kind is kind]


def failing(*arguments: Any) -> Any:
    raise ValueError("no such layer\nsecond line")


def descend(model: nn.Module, *, noise: float = 0.0) -> float:
    with torch.no_grad():
        for weight in model.parameters():
            weight.sub_(0.01 + noise * random.random())
    return 1.0
