"""Regression: how diabetes went on in a year, of 442 people, from ten measurements.

Source: B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, Least Angle Regression, Annals of
Statistics 32 (2004).
"""

import numpy as np
import torch
from torch import nn

from fedaq.metric import Metric
from fedaq.tasks import Examples, Task, Training, evaluate_regression, trainer
from fedaq.tasks.carried import held_out, shuffled, table

TEST_EXAMPLES = 88
# Of the targets, which are scores from 25 to 346.
MEAN, STD = 152.0, 77.0


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


def _read() -> Examples:
    measured = table("regression", "diabetes_data_raw.csv.gz")
    score = table("regression", "diabetes_target.csv.gz")
    measured = (measured - measured.mean(axis=0)) / measured.std(axis=0)
    rows = shuffled(np.column_stack([measured, (score - MEAN) / STD]))
    return Examples(torch.from_numpy(rows[:, :10].copy()), torch.from_numpy(rows[:, 10:].copy()))


_train_data, _test_data = held_out(_read, TEST_EXAMPLES)
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
