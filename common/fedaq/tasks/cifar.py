"""CIFAR-10, or other small colour pictures, and the residual networks that learn them.

Source of CIFAR-10: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
The ``--data`` folder holds the six official binary files, or class folders as those of the task
`images`. The networks are those of K. He et al., arXiv 1512.03385, section 4.2: ResNet-8 with
batch normalization, and ResNet-20 with group normalization.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedaq.errors import UserError
from fedaq.tasks import Examples, Normalise, Task, Training, images

# Of the pixels of CIFAR-10's training images, scaled to 0 to 1.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WIDTHS = (16, 32, 64)
# In the order of their numbers in the files.
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
_RECORD = np.dtype([("label", np.uint8), ("pixels", np.uint8, (3, images.SIDE, images.SIDE))])
_GROUPS = 4

Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """Two convolutions, and what came in added to what they give."""

    def __init__(self, norm: Norm, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_convolution(norm, inputs, outputs, 3, stride), nn.ReLU())
        self.second = _convolution(norm, outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.beside = nn.Identity() if same else _convolution(norm, inputs, outputs, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32, with the channels of the block."""
        added: Tensor = self.second(self.first(inputs)) + self.beside(inputs)
        return added.relu()


def _convolution(norm: Norm, inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False),
        norm(outputs),
    )


def group_norm(channels: int) -> nn.Module:
    """Return a layer that normalizes each picture by itself, so it keeps no statistics."""
    return nn.GroupNorm(_GROUPS, channels)


def resnet(classes: int, norm: Norm, blocks: int) -> nn.Module:
    """Return a network for pictures of bytes.

    Parameters
    ----------
    classes : int
    norm : callable
        ``norm(channels)`` returns the layer behind each convolution.
    blocks : int
        Of each of the three widths; there are ``6 * blocks + 2`` layers.
    """
    first, *_, last = WIDTHS
    layers: list[nn.Module] = []
    before = first
    for width in WIDTHS:
        for _ in range(blocks):
            layers.append(Block(norm, before, width, 1 if width == before else 2))
            before = width
    return nn.Sequential(
        Normalise(MEAN, STD), _convolution(norm, 3, first, 3, 1), nn.ReLU(), *layers,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes),
    )  # fmt: skip


def task(data: Path | None) -> Task:
    """Return the task of ResNet-8 with batch normalization.

    Raises
    ------
    UserError
        If `data` holds neither the binary files nor two class folders.
    """
    return _task("cifar", data, nn.BatchNorm2d, 1)


def group(data: Path | None) -> Task:
    """Return the task of ResNet-20 with group normalization, which has 0.27 M weights.

    Raises
    ------
    UserError
        As from `task`.
    """
    return _task("cifar-group", data, group_norm, 3)


def _task(name: str, data: Path | None, norm: Norm, blocks: int) -> Task:
    folder = None if data is None else binary_folder(data)
    if folder is None:
        pictures = images.task(data)
        classes, train, test = pictures.classes, pictures.train_data, pictures.test_data
    else:
        classes, train, test = (
            CLASSES,
            partial(_part, folder, "train"),
            partial(_part, folder, "test"),
        )
    return Task(
        name=name,
        model=partial(resnet, len(classes), norm, blocks),
        train_data=train,
        test_data=test,
        training=Training(local_epochs=1, batch_size=64, learning_rate=0.05, momentum=0.9),
        classes=classes,
    )


def binary_folder(data: Path) -> Path | None:
    """Return where the official binary files lie: the folder, or the one that their archive makes.

    One of them will do: a client has no need of the test, the server none of the rest.
    """
    names = [name for part in FILES.values() for name in part]
    for folder in (data, data / "cifar-10-batches-bin"):
        if any((folder / name).is_file() for name in names):
            return folder
    return None


def _part(folder: Path, part: str, _: Path | None) -> Examples:
    records = np.concatenate([read_batch(folder / name) for name in FILES[part]])
    return Examples(
        torch.from_numpy(records["pixels"].copy()),
        torch.from_numpy(records["label"].astype(np.int64)),
    )


def read_batch(path: Path) -> NDArray[np.void]:
    """Read one of the official binary files.

    Returns
    -------
    records, shape (n,)
        ``label``, uint8, and ``pixels``, uint8, shape (3, 32, 32).

    Raises
    ------
    UserError
        If it cannot be read, ends within a picture, or has labels of more than ten classes.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) % _RECORD.itemsize or not content:
        raise UserError(
            f"{path}: {len(content)} bytes; pictures of {_RECORD.itemsize} bytes each are needed; "
            "the file is damaged"
        )
    records = np.frombuffer(content, _RECORD)
    largest = records["label"].max()
    if largest >= len(CLASSES):
        raise UserError(f"{path}: label {largest}; labels are 0 to {len(CLASSES) - 1}")
    return records
