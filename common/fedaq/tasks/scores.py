"""Tests of models that are no classifiers, and scores that a test of one's own may add."""

from math import exp, inf
from typing import Any

import torch
from torch import Tensor, nn

from fedaq.tasks.examples import device_of, in_order
from fedaq.tasks.parts import Evaluation

# Large enough to keep the processor busy, small enough for a batch to stay in its cache.
TEST_BATCH = 250
# Sequences of a token model: each is as large as hundreds of examples.
TOKEN_BATCH = 8
# The target of a token that does not count, as torch and transformers have it.
IGNORED = -100


def evaluate_regression(model: nn.Module, data: Any) -> Evaluation:
    """Return the mean squared error, ``mae`` and ``r2`` of a model that gives a number or several.

    Parameters
    ----------
    model : nn.Module
        Gives as many values an example as its target has.
    data : Examples or Dataset
        Targets of any real dtype, shape (n,) or (n, ...).

    Returns
    -------
    Evaluation
        `loss` is the mean squared error, ``mae`` the mean absolute error, ``r2`` the share of the
        targets' variance that the model explains, 1 at best; a mean over the values of a target
        that has several. Where they do not vary at all it is 1 for an exact model and else 0.
    """
    model.eval()
    absolute, count = 0.0, 0
    first: Tensor | None = None
    sums = torch.zeros(1)
    with torch.no_grad():
        for inputs, targets in in_order(data, TEST_BATCH, device_of(model)):
            known = targets.cpu().double()
            wanted = known.flatten(1) if known.dim() > 1 else known[:, None]
            wrong = model(inputs).cpu().double().reshape(wanted.shape) - wanted
            absolute += float(wrong.abs().sum())
            count += wrong.numel()
            # Relative to the first target: sums of large numbers would lose the variance.
            first = wanted[0] if first is None else first
            moved = wanted - first
            sums = sums + torch.stack([wrong.square().sum(0), moved.sum(0), moved.square().sum(0)])
    if first is None:
        raise ValueError("there is no example to test with")
    squared, moved_sum, moved_squared = sums
    spread = moved_squared - moved_sum.square() / len(data)
    share = torch.where(spread > 0, squared / spread, (squared > 0).double())
    metrics = {"mae": absolute / count, "r2": float((1 - share).mean())}
    return Evaluation(loss=float(squared.sum()) / count, metrics=metrics)


def evaluate_tokens(model: nn.Module, data: Any) -> Evaluation:
    """Return the mean cross-entropy of a token and its ``perplexity``.

    Parameters
    ----------
    model : nn.Module
        Gives scores, shape (n, tokens, vocabulary), or something with such `logits`.
    data : Examples or Dataset
        Targets int64, shape (n, tokens); those of -100 do not count.
    """
    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for inputs, targets in in_order(data, TOKEN_BATCH, device_of(model)):
            given = model(inputs)
            scores: Tensor = getattr(given, "logits", given)
            total += float(
                nn.functional.cross_entropy(
                    scores.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum"
                )
            )
            tokens += int((targets != IGNORED).sum())
    if not tokens:
        raise ValueError("there is no token to test with")
    loss = total / tokens
    return Evaluation(loss=loss, metrics={"perplexity": exp(loss) if loss < 700 else inf})


def f1_macro(predicted: Tensor, targets: Tensor) -> float:
    """Return the mean over the classes of the harmonic mean of precision and recall.

    Parameters
    ----------
    predicted, targets : int64 tensors of one shape
        Class numbers from 0. Classes that neither has do not count.
    """
    right, said, meant = _counts(predicted, targets)
    return float((2 * right / (said + meant)).mean())


def iou_macro(predicted: Tensor, targets: Tensor) -> float:
    """Return the mean over the classes of intersection over union.

    Parameters
    ----------
    predicted, targets : int64 tensors of one shape
        Class numbers from 0, of examples or of pixels. Classes that neither has do not count.
    """
    right, said, meant = _counts(predicted, targets)
    return float((right / (said + meant - right)).mean())


def _counts(predicted: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return per class how often it was right, said, and meant."""
    predicted, targets = predicted.flatten(), targets.flatten()
    if not len(targets) or len(predicted) != len(targets):
        raise ValueError(f"{len(predicted)} predictions for {len(targets)} targets")
    classes = int(torch.maximum(predicted, targets).max()) + 1
    right, said, meant = (
        torch.bincount(numbers, minlength=classes).double()
        for numbers in (targets[predicted == targets], predicted, targets)
    )
    there = said + meant > 0
    return right[there], said[there], meant[there]
