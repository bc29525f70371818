"""Fashion-MNIST: 70,000 images of clothes, 28x28, ten classes.

Source: H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv 1708.07747. The four
official files lie in the ``--data`` folder, compressed or not.
"""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedaq.errors import UserError
from fedaq.tasks import Examples, Normalise, Task, Training

CLASSES = 10
# Of the pixels of the 60,000 training images, scaled to 0 to 1.
MEAN, STD = (0.2860,), (0.3530,)

_TRAINING = Training(local_epochs=1, batch_size=64, learning_rate=0.05, momentum=0.5)
_IMAGES, _LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
_BYTES = 0x08


def _mlp() -> nn.Module:
    return nn.Sequential(
        Normalise(MEAN, STD),
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )


def _cnn() -> nn.Module:
    """Return the CNN of FedDQ, arXiv 2110.02291; padding as in arXiv 1602.05629.

    A ReLU after the pooling gives the same values as before it, from a quarter of them.
    """
    return nn.Sequential(
        Normalise(MEAN, STD),
        nn.Conv2d(1, 32, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 512),
        nn.ReLU(),
        nn.Linear(512, CLASSES),
    )


def _train_data(data: Path | None) -> Examples:
    return _read(data, "train")


def _test_data(data: Path | None) -> Examples:
    return _read(data, "t10k")


def _read(data: Path | None, part: str) -> Examples:
    names = [_IMAGES.format(part), _LABELS.format(part)]
    paths = [] if data is None else [path for name in names for path in _present(data, name)[:1]]
    if len(paths) < 2:
        raise UserError(
            f"task fashion-mnist: the folder --data {data or 'DIR'} must hold "
            f"{' and '.join(names)}, each with .gz at its end or without"
        )
    images, labels = read_idx(paths[0], (28, 28)), read_idx(paths[1], ())
    if len(images) != len(labels) or len(images) == 0:
        raise UserError(f"{paths[1]}: {len(labels)} labels for {len(images)} images")
    if labels.max() >= CLASSES:
        raise UserError(f"{paths[1]}: label {labels.max()}; labels are 0 to {CLASSES - 1}")
    return Examples(
        torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))
    )


def _present(data: Path, name: str) -> list[Path]:
    return [path for path in (data / name, data / f"{name}.gz") if path.is_file()]


def read_idx(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, as Yann LeCun's MNIST page defines the format.

    Parameters
    ----------
    path : Path
        Compressed if its name ends with ``.gz``.
    item : tuple of int
        The shape that each of its items must have.

    Returns
    -------
    uint8, shape (n, *item)

    Raises
    ------
    UserError
        If the file cannot be read, has another header, or is not as long as that says.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}") from None
    dimensions = 1 + len(item)
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, _BYTES, dimensions)):
        raise UserError(f"{path}: not an IDX file of bytes with {dimensions} dimensions")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if shape[1:] != item:
        raise UserError(f"{path}: the items are {_times(shape[1:])}; {_times(item)} is needed")
    if len(content) != header + prod(shape):
        raise UserError(
            f"{path}: {len(content)} bytes; its header says {header} + {_times(shape)}; "
            "the file is damaged"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


mlp = Task("fashion-mnist", _mlp, _train_data, _test_data, _TRAINING)
cnn = Task("fashion-mnist-cnn", _cnn, _train_data, _test_data, _TRAINING)
