"""Regression: how diabetes went on in a year, of 442 people, from ten measurements.

Source: B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, Least Angle Regression, Annals of
Statistics 32 (2004). scikit-learn carries the files; they are read without importing it, which
would add a second to the start of every process.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedaq.errors import UserError
from fedaq.metric import Metric
from fedaq.tasks import Examples, Task, Training, evaluate_regression, trainer

TEST_EXAMPLES = 88
# Of the targets, which are scores from 25 to 346; columns of the inputs have length 1.
MEAN, STD = 152.0, 77.0


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


def _read() -> Examples:
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise UserError("task regression: scikit-learn carries the data; pip install scikit-learn")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    with (
        gzip.open(folder / "diabetes_data_raw.csv.gz", "rt") as inputs,
        gzip.open(folder / "diabetes_target.csv.gz", "rt") as targets,
    ):
        measured, score = np.loadtxt(inputs), np.loadtxt(targets)
    measured = (measured - measured.mean(axis=0)) / measured.std(axis=0)
    table = np.column_stack([measured, (score - MEAN) / STD]).astype(np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    return Examples(torch.from_numpy(table[:, :10].copy()), torch.from_numpy(table[:, 10:].copy()))


def _train_data(data: Path | None) -> Examples:
    everything = _read()
    return Examples(everything.inputs[TEST_EXAMPLES:], everything.targets[TEST_EXAMPLES:])


def _test_data(data: Path | None) -> Examples:
    everything = _read()
    return Examples(everything.inputs[:TEST_EXAMPLES], everything.targets[:TEST_EXAMPLES])


task = Task(
    name="regression",
    model=_model,
    train_data=_train_data,
    test_data=_test_data,
    training=Training(
        local_epochs=2, batch_size=16, learning_rate=0.003, optimizer="adamw", weight_decay=0.01
    ),
    train=trainer(nn.functional.mse_loss),
    evaluate=evaluate_regression,
    metric=Metric("r2"),
)
