"""The task: which activity do 2.56 s of an accelerometer show?

``--data`` is a folder with ``recording.csv``: the header ``activity,x,y,z``, then one line per
sample, 50 a second, in m/s^2. On a client it is that of its own device.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedaq.errors import UserError
from fedaq.tasks import Examples, Task, Training
from sensors.signals import ACTIVITIES, GRAVITY_MS2

WINDOW = 128
STEP = WINDOW // 2


def model() -> nn.Module:
    """Return a small 1-D CNN: 3 axes in, one score per activity out.

    `GroupNorm` where one might expect `BatchNorm`, whose running statistics do not average well
    between clients that differ (docs/tutorials/bring-your-own.md).
    """
    return nn.Sequential(
        *_layer(3, 16),
        *_layer(16, 32),
        *_layer(32, 32),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(32, len(ACTIVITIES)),
    )


def _layer(channels: int, out: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv1d(channels, out, kernel_size=9, stride=2, padding=4)
    return convolution, nn.GroupNorm(4, out), nn.ReLU()


def read(data: Path | None) -> Examples:
    """Cut the recording of a folder into windows, each of one activity."""
    if data is None:
        raise UserError("task sensors: --data FOLDER with recording.csv is needed")
    path = data / "recording.csv"
    try:
        table = np.loadtxt(
            path,
            delimiter=",",
            skiprows=1,
            ndmin=1,
            dtype=[("activity", "U16"), ("x", "f4"), ("y", "f4"), ("z", "f4")],
        )
    except (OSError, ValueError) as error:
        raise UserError(f"task sensors: {path}: cannot be read: {error}") from None
    unknown = set(table["activity"]) - set(ACTIVITIES)
    if unknown:
        raise UserError(
            f"task sensors: {path}: activity '{min(unknown)}'; known are {', '.join(ACTIVITIES)}"
        )
    labels = np.array([ACTIVITIES.index(name) for name in table["activity"]])
    signal = np.stack([table[axis] for axis in "xyz"]) / np.float32(GRAVITY_MS2)
    starts = range(0, len(labels) - WINDOW + 1, STEP)
    whole = [at for at in starts if len(set(labels[at : at + WINDOW])) == 1]
    if not whole:
        raise UserError(f"task sensors: {path}: no {WINDOW} samples in a row of one activity")
    return Examples(
        torch.from_numpy(np.stack([signal[:, at : at + WINDOW] for at in whole])),
        torch.from_numpy(labels[whole]),
    )


task = Task(
    name="sensors",
    model=model,
    train_data=read,
    test_data=read,
    training=Training(local_epochs=2, batch_size=16, learning_rate=0.05, momentum=0.5),
)
