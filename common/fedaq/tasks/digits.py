"""Handwritten digits: 1,797 real 8x8 images that scikit-learn carries.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository (1998).
"""

import numpy as np
import torch
from torch import nn

from fedaq.tasks import Examples, Task, Training
from fedaq.tasks.carried import held_out, shuffled, table

TEST_EXAMPLES = 360


def _model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def _read() -> Examples:
    rows = shuffled(table("digits", "digits.csv.gz", ","))
    return Examples(
        torch.from_numpy(rows[:, :64] / 16), torch.from_numpy(rows[:, 64].astype(np.int64))
    )


_train_data, _test_data = held_out(_read, TEST_EXAMPLES)
task = Task(
    name="digits",
    model=_model,
    train_data=_train_data,
    test_data=_test_data,
    training=Training(local_epochs=2, batch_size=16, learning_rate=0.1, momentum=0.5),
)
