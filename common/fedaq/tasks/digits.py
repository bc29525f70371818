"""Handwritten digits: 1,797 real 8x8 images that scikit-learn carries.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository (1998). The file is read without importing
scikit-learn, which would add a second to the start of every process.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedaq.errors import UserError
from fedaq.tasks import Examples, Task, Training

TEST_EXAMPLES = 360


def _model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def _read() -> Examples:
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise UserError("task digits: scikit-learn carries the images; pip install scikit-learn")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    return Examples(
        torch.from_numpy(table[:, :64] / 16), torch.from_numpy(table[:, 64].astype(np.int64))
    )


def _train_data(data: Path | None) -> Examples:
    everything = _read()
    return Examples(everything.inputs[TEST_EXAMPLES:], everything.targets[TEST_EXAMPLES:])


def _test_data(data: Path | None) -> Examples:
    everything = _read()
    return Examples(everything.inputs[:TEST_EXAMPLES], everything.targets[:TEST_EXAMPLES])


task = Task(
    name="digits",
    model=_model,
    train_data=_train_data,
    test_data=_test_data,
    training=Training(local_epochs=2, batch_size=16, learning_rate=0.1, momentum=0.5),
)
