"""Scores against those of scikit-learn, and the tests of models that are no classifiers."""

from math import exp, log
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as expected
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedaq.tasks import Examples, evaluate_regression, evaluate_tokens, f1_macro, iou_macro

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("classes", [1, 2, 7, 40])
@pytest.mark.parametrize("shape", [(60,), (4, 5, 6)])
def test_scores_of_classes(classes: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(classes)
    # With 40 classes some are only predicted, some only meant, and some neither.
    predicted, targets = (torch.randint(classes, shape, generator=generator) for _ in range(2))
    one, other = predicted.flatten().numpy(), targets.flatten().numpy()
    f1 = expected.f1_score(other, one, average="macro", zero_division=0)
    iou = expected.jaccard_score(other, one, average="macro", zero_division=0)
    assert f1_macro(predicted, targets) == pytest.approx(f1)
    assert iou_macro(predicted, targets) == pytest.approx(iou)
    assert f1_macro(targets, targets) == iou_macro(targets, targets) == 1.0


def test_scores_of_nothing_are_no_numbers() -> None:
    for score in (f1_macro, iou_macro):
        with pytest.raises(ValueError, match="0 predictions for 0 targets"):
            score(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        with pytest.raises(ValueError, match="2 predictions for 3 targets"):
            score(torch.ones(2, dtype=torch.int64), torch.ones(3, dtype=torch.int64))


def numbers(count: int, *shape: int, mean: float = 0.0) -> Examples:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 6, generator=generator)
    return Examples(inputs, mean + torch.randn(count, *shape, generator=generator))


@pytest.mark.parametrize(("shape", "outputs"), [((), 1), ((1,), 1), ((3,), 3), ((2, 2), 4)])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_regression(shape: tuple[int, ...], outputs: int, mean: float) -> None:
    data = numbers(603, *shape, mean=mean)
    torch.manual_seed(0)
    model = nn.Linear(6, outputs)
    with torch.no_grad():
        model.bias.add_(mean)
        given = model(data.inputs).double().numpy()
    wanted = data.targets.double().reshape(603, -1).numpy()
    found = evaluate_regression(model, data)
    assert found.loss == pytest.approx(expected.mean_squared_error(wanted, given))
    assert found.metrics == {
        "mae": pytest.approx(expected.mean_absolute_error(wanted, given)),
        "r2": pytest.approx(expected.r2_score(wanted, given)),
    }
    pairs = TensorDataset(data.inputs, data.targets)
    assert evaluate_regression(model, pairs) == found


def test_regression_on_targets_that_do_not_vary() -> None:
    data = Examples(torch.zeros(4, 1), torch.full((4,), 2.0))
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.bias.fill_(2.0)
    assert evaluate_regression(model, data).metrics == {"mae": 0.0, "r2": 1.0}
    with torch.no_grad():
        model.bias.fill_(3.0)
    assert evaluate_regression(model, data).metrics == {"mae": 1.0, "r2": 0.0}


def test_regression_on_integers() -> None:
    data = Examples(torch.zeros(4, 1), torch.tensor([1, 2, 3, 4]))
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.bias.fill_(2.5)
    found = evaluate_regression(model, data)
    assert (found.loss, found.metrics) == (1.25, {"mae": 1.0, "r2": 0.0})


class Uniform(nn.Module):
    def __init__(self, vocabulary: int, *, wrapped: bool = False) -> None:
        super().__init__()
        self.vocabulary, self.wrapped = vocabulary, wrapped

    def forward(self, tokens: Tensor) -> Any:
        scores = torch.zeros(*tokens.shape, self.vocabulary)
        return SimpleNamespace(logits=scores) if self.wrapped else scores


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large(
    wrapped: bool,
) -> None:
    tokens = torch.arange(60).reshape(20, 3) % 11
    found = evaluate_tokens(Uniform(11, wrapped=wrapped), Examples(tokens, tokens))
    assert found.loss == pytest.approx(log(11))
    assert found.metrics == {"perplexity": pytest.approx(11)}


def test_tokens_that_do_not_count() -> None:
    torch.manual_seed(0)
    model = nn.Embedding(5, 5)
    tokens = torch.arange(60).reshape(20, 3) % 5
    targets = (tokens + 1) % 5
    targets[::2, 1] = -100
    with torch.no_grad():
        chances = model(tokens).double().softmax(-1).numpy().reshape(60, 5)
    counted = targets.flatten().numpy()
    rows = np.flatnonzero(counted >= 0)
    loss = -np.log(chances[rows, counted[rows]]).mean()
    found = evaluate_tokens(model, Examples(tokens, targets))
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.metrics["perplexity"] == pytest.approx(exp(loss), rel=1e-6)
    with pytest.raises(ValueError, match="no token to test with"):
        evaluate_tokens(model, Examples(tokens, torch.full_like(tokens, -100)))
