"""Tasks whose training and testing start processes of their own; HOW says in which way."""

import multiprocessing
import os
from collections.abc import Sized
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedaq.tasks import Evaluation, Examples, Training, evaluate_classifier, train_classifier
from fedaq.tasks.digits import task as digits

HOW = os.environ.get("HOW", "fork")
WORKERS = 2


def loaded(data: Sized) -> Examples:
    """Return the same examples, brought by work processes."""
    assert isinstance(data, Examples)
    pairs: TensorDataset = TensorDataset(data.inputs, data.targets)
    loader: Any = DataLoader(pairs, 200, num_workers=WORKERS, multiprocessing_context=HOW)
    inputs, targets = zip(*loader, strict=True)
    return Examples(torch.cat(inputs), torch.cat(targets))


def train(model: nn.Module, data: Sized, training: Training, seed: int) -> float:
    return train_classifier(model, loaded(data), training, seed)


def evaluate(model: nn.Module, data: Sized) -> Evaluation:
    return evaluate_classifier(model, loaded(data))


task = replace(digits, train=train, evaluate=evaluate)


def double(values: Tensor) -> Tensor:
    return 2 * values


def train_beside_a_pool(model: nn.Module, data: Sized, training: Training, seed: int) -> float:
    # At its end the pool sends SIGTERM to its processes, and waits until they die of it.
    with multiprocessing.get_context(HOW).Pool(WORKERS) as pool:
        assert pool.map(double, [torch.ones(1)]) == [2 * torch.ones(1)]
    return train_classifier(model, data, training, seed)


pool = replace(digits, train=train_beside_a_pool)
