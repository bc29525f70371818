"""Classifiers: the training and the test that a task has where it names no other."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedaq.errors import UserError
from fedaq.tasks.examples import batches, in_order
from fedaq.tasks.parts import Evaluation, Training
from fedaq.tasks.scores import TEST_BATCH


class Normalise(nn.Module):
    """Turn pixels of 0 to 255 into ``(pixel / 255 - mean) / std``, float32.

    As a model's first layer it lets images stay bytes in memory, a quarter of float32,
    and the trained model takes the same pixels wherever it is used.

    Parameters
    ----------
    mean, std : sequence of float
        One per channel, of pixels scaled to 0 to 1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = 1 / (255 * torch.tensor(std).view(-1, 1, 1))
        shift = -torch.tensor(mean).view(-1, 1, 1) * 255 * scale
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return float32 of the same shape, (n, channels, height, width).

        Channels lie last in memory, which makes the convolutions after it a third faster.
        """
        values = pixels.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(self.shift, values, self.scale)


def train_classifier(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    """Train with SGD, momentum and cross-entropy, and return the mean loss.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    data : Examples or Dataset
        A `Dataset` yields (input, label), or dicts of them.
    training : Training
    seed : int
        Decides the order of the examples.

    Returns
    -------
    float
        Mean cross-entropy over all examples of all epochs.
    """
    order = torch.Generator().manual_seed(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    velocities = [torch.zeros_like(weight) for weight in weights]
    model.train()
    total, seen = 0.0, 0
    for _ in range(training.local_epochs):
        shuffled = torch.randperm(len(data), generator=order)
        for inputs, targets in batches(data, shuffled, training.batch_size):
            loss = nn.functional.cross_entropy(model(inputs), as_labels(targets))
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            _descend(weights, velocities, gradients, training)
            total += loss.item() * len(targets)
            seen += len(targets)
    return total / seen


def _descend(
    weights: Iterable[Tensor],
    velocities: Iterable[Tensor],
    gradients: Iterable[Tensor | None],
    training: Training,
) -> None:
    """Take the step of `torch.optim.SGD`, whose import costs a second and 70 MB."""
    with torch.no_grad():
        for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
            if gradient is not None:
                torch.add(gradient, velocity, alpha=training.momentum, out=velocity)
                weight.sub_(velocity, alpha=training.learning_rate)


def evaluate_classifier(model: nn.Module, data: Any) -> Evaluation:
    """Return accuracy and mean cross-entropy on `Examples` or a `Dataset`."""
    model.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for inputs, targets in in_order(data, TEST_BATCH):
            scores, labels = model(inputs), as_labels(targets)
            meant = labels.argmax(dim=1) if labels.is_floating_point() else labels
            right += int((scores.argmax(dim=1) == meant).sum())
            loss += float(nn.functional.cross_entropy(scores, labels, reduction="sum"))
    return Evaluation(right / len(data), loss / len(data))


def as_labels(targets: Tensor) -> Tensor:
    """Return targets as cross-entropy takes them.

    Class numbers of any integer type, shape (n,) or (n, 1), become int64, shape (n,);
    probabilities, floating-point, shape (n, classes), stay as they are.

    Raises
    ------
    UserError
        If they are other numbers.
    """
    if targets.is_floating_point():
        if targets.dim() == 1:
            raise UserError(
                f"the labels are {targets.dtype}; a classifier takes class numbers, int64, or a "
                "probability for each class; for anything else give the task its own train and "
                "evaluate"
            )
        return targets
    return (targets[:, 0] if targets.shape[1:] == (1,) else targets).long()
