"""Small colour pictures and a residual network with batch normalization, as for CIFAR-10.

Source of CIFAR-10: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
Pictures lie in class folders, as those of the task `images`; those of CIFAR-10 have its size. The
network is ResNet-8 of K. He et al., arXiv 1512.03385, section 4.2.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from fedaq.tasks import Normalise, Task, Training, images

# Of the pixels of CIFAR-10's training images, scaled to 0 to 1.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two convolutions, and what came in added to what they give."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_convolution(inputs, outputs, 3, stride), nn.ReLU())
        self.second = _convolution(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.beside = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32, with the channels of the block."""
        added: Tensor = self.second(self.first(inputs)) + self.beside(inputs)
        return added.relu()


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _resnet(classes: int) -> nn.Module:
    first, *_, last = WIDTHS
    blocks: list[nn.Module] = []
    before = first
    for width in WIDTHS:
        blocks.append(Block(before, width, 1 if width == first else 2))
        before = width
    return nn.Sequential(
        Normalise(MEAN, STD), _convolution(3, first, 3, 1), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes),
    )  # fmt: skip


def task(data: Path | None) -> Task:
    """Return the task for the class folders below `data`.

    Raises
    ------
    UserError
        If there are fewer than two.
    """
    pictures = images.task(data)
    return replace(
        pictures,
        name="cifar",
        model=partial(_resnet, len(pictures.classes)),
        training=Training(local_epochs=1, batch_size=64, learning_rate=0.05, momentum=0.9),
        renamed={},
    )
