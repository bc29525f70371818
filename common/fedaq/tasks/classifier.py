"""Classifiers: the training and the test that a task has where it names no other."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from fedaq.tasks.parts import Evaluation, Examples, Training

# Large enough to keep the processor busy, small enough for a batch to stay in its cache.
_TEST_BATCH = 250
# Examples that show the statistics of a model well enough, whatever there are.
_MEASURED = 1024


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

    An example that would be a last batch alone joins the batch before it: BatchNorm takes no batch
    of one.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    data : Examples or Dataset
        A `Dataset` yields (input, label).
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
        for inputs, targets in _batches(data, _shared_out(shuffled, training.batch_size)):
            loss = nn.functional.cross_entropy(model(inputs), targets)
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
        for inputs, targets in _batches(data, torch.arange(len(data)).split(_TEST_BATCH)):
            scores = model(inputs)
            right += int((scores.argmax(dim=1) == targets).sum())
            loss += float(nn.functional.cross_entropy(scores, targets, reduction="sum"))
    return Evaluation(right / len(data), loss / len(data))


def measure_statistics(model: nn.Module, data: Any, seed: int) -> None:
    """Make the running statistics of normalization layers those of the model as it is.

    One pass without gradients over at most 1,024 examples. Only layers that training updates take
    part; all others act as in a test.

    Parameters
    ----------
    model : nn.Module
        Its means and variances are written; whatever else the pass changes is left to the caller.
    data : Examples or Dataset
        A `Dataset` yields (input, label).
    seed : int
        Decides which examples, and in which batches.
    """
    model.train()
    # Layers that a model of its own accord leaves as in a test are not updated in training either.
    layers: list[Any] = [
        layer for layer in model.modules() if layer.training and _has_statistics(layer)
    ]
    model.eval()
    for layer in layers:
        layer.train()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    momenta = [layer.momentum for layer in layers]
    batches = _shared_out(order[:_MEASURED], _TEST_BATCH)
    seen = 0
    with torch.no_grad():
        for inputs, targets in _batches(data, batches):
            seen += len(targets)
            for layer in layers:
                # The mean over all examples so far, for layers of any kind.
                layer.momentum = len(targets) / seen
            model(inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def _has_statistics(layer: Any) -> bool:
    own = (getattr(layer, name, None) for name in ("running_mean", "running_var"))
    return hasattr(layer, "momentum") and all(isinstance(value, Tensor) for value in own)


def _shared_out(order: Tensor, size: int) -> list[Tensor]:
    """Return the batches of an epoch, none of them of one example if that can be."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches[-2:] = [order[-size - 1 :]]
    return batches


def _batches(data: Any, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for indices in batches:
        if isinstance(data, Examples):
            yield data.inputs.index_select(0, indices), data.targets.index_select(0, indices)
        else:
            inputs, targets = default_collate([data[index] for index in indices.tolist()])
            yield inputs, targets
