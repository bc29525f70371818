"""Classifiers: the training and the test that a task has where it names no other."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fedaq.errors import UserError
from fedaq.modules.policies import has_statistics
from fedaq.tasks.context import TrainingContext
from fedaq.tasks.examples import batches, device_of, in_order
from fedaq.tasks.optimizers import Optimizer, clipped, drawn_back
from fedaq.tasks.parts import Evaluation
from fedaq.tasks.scores import TEST_BATCH
from fedaq.tasks.training import Training

# In the state of a client.
_OPTIMIZER = "fedaq.optimizer"
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


def train_classifier(
    model: nn.Module,
    data: Any,
    training: Training,
    seed: int,
    context: TrainingContext | None = None,
) -> float:
    """Train with cross-entropy and all that a `Training` says, and return the mean loss.

    An example that would be a last batch alone joins the batch before it: BatchNorm takes no batch
    of one.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    data : Examples or Dataset
        A `Dataset` yields (input, label), or dicts of them.
    training : Training
        Of the schedule, only what `Training.in_round` has made of it counts.
    seed : int
        Decides the order of the examples.
    context : TrainingContext, optional
        Without one, no optimizer is kept, and the model is taken for the one received.

    Returns
    -------
    float
        Mean cross-entropy over all examples of all epochs.
    """
    return _trained(_cross_entropy, model, data, training, seed, context)


def _cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores, as_labels(targets))


def trainer(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., float]:
    """Return a `train` like `train_classifier`, with a loss of your own.

    Parameters
    ----------
    loss : callable
        ``loss(outputs, targets)`` returns the mean over a batch, for example
        `torch.nn.functional.mse_loss`.
    """

    def train(
        model: nn.Module,
        data: Any,
        training: Training,
        seed: int,
        context: TrainingContext | None = None,
    ) -> float:
        return _trained(loss, model, data, training, seed, context)

    return train


def _trained(
    criterion: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    data: Any,
    training: Training,
    seed: int,
    context: TrainingContext | None,
) -> float:
    context = context or TrainingContext()
    order = torch.Generator().manual_seed(seed)
    named: dict[str, Tensor] = {
        name: weight for name, weight in model.named_parameters() if weight.requires_grad
    }
    weights = list(named.values())
    kept = context.state.get(_OPTIMIZER) if training.keep_optimizer else None
    optimizer = Optimizer.begun(training, weights, kept)
    anchors = _anchors(named, context.received) if training.proximal else []
    model.train()
    total, seen, done = 0.0, 0, 0
    all_indices = torch.arange(len(data))
    count = training.local_epochs * len(_shared_out(all_indices, training.batch_size))
    device = device_of(model)
    for _ in range(training.local_epochs):
        shuffled = torch.randperm(len(data), generator=order)
        batched = _shared_out(shuffled, training.batch_size)
        for inputs, targets in batches(data, batched, device):
            with _precision(training, device):
                loss = criterion(model(inputs), targets)
            gradients: Sequence[Tensor | None] = torch.autograd.grad(
                loss, weights, allow_unused=True
            )
            # Of an embedding they may be sparse, to which torch adds nothing dense.
            gradients = [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]
            if training.proximal:
                gradients = drawn_back(gradients, weights, anchors, training.proximal)
            if training.clip_norm:
                gradients = clipped(gradients, training.clip_norm)
            optimizer.step(gradients)
            total += loss.item() * len(targets)
            seen += len(targets)
            done += 1
            context.progress(done, count)
    if training.keep_optimizer:
        context.state[_OPTIMIZER] = optimizer.state()
    return total / seen


def _anchors(named: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the weights as they were received: what has not travelled is as it is now."""
    return [
        received[name] if name in received else weight.detach().clone()
        for name, weight in named.items()
    ]


def _precision(training: Training, device: torch.device) -> AbstractContextManager[object]:
    if not training.mixed_precision:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def evaluate_classifier(model: nn.Module, data: Any) -> Evaluation:
    """Return accuracy and mean cross-entropy on `Examples` or a `Dataset`."""
    model.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for inputs, targets in in_order(data, TEST_BATCH, device_of(model)):
            scores, labels = model(inputs), as_labels(targets)
            meant = labels.argmax(dim=1) if labels.is_floating_point() else labels
            right += int((scores.argmax(dim=1) == meant).sum())
            loss += float(nn.functional.cross_entropy(scores, labels, reduction="sum"))
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
        layer
        for layer in model.modules()
        if layer.training and has_statistics(layer) and hasattr(layer, "momentum")
    ]
    model.eval()
    for layer in layers:
        layer.train()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    momenta = [layer.momentum for layer in layers]
    shares = _shared_out(order[:_MEASURED], TEST_BATCH)
    seen = 0
    with torch.no_grad():
        for inputs, targets in batches(data, shares, device_of(model)):
            seen += len(targets)
            for layer in layers:
                # The mean over all examples so far, for layers of any kind.
                layer.momentum = len(targets) / seen
            model(inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def _shared_out(order: Tensor, size: int) -> list[Tensor]:
    """Return the batches of an epoch, none of them of one example if that can be."""
    shares = list(order.split(size))
    if len(shares) > 1 and len(shares[-1]) == 1 < size:
        shares[-2:] = [order[-size - 1 :]]
    return shares


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
