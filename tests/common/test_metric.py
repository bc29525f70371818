"""What a task's test may return, and what is made of it."""

import re
from collections.abc import Callable
from dataclasses import replace
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.small_tasks import small_data, small_model
from fedaq.errors import UserError
from fedaq.metric import Metric
from fedaq.tasks import Evaluation, Task, evaluated

TASK = Task("small", small_model, lambda _: small_data(), lambda _: small_data())
LOSS = Metric("loss", higher_is_better=False)


def test_an_evaluation_is_made_in_either_way() -> None:
    classic = Evaluation(0.5, 1.0)
    assert (classic.accuracy, classic.loss, classic.metrics) == (0.5, 1.0, {"accuracy": 0.5})
    assert classic == Evaluation(accuracy=0.5, loss=1.0)
    assert classic == Evaluation(loss=1.0, metrics={"accuracy": 0.5})
    other = Evaluation(loss=1.0, metrics={"mae": 2.0})
    assert isnan(other.accuracy)
    assert replace(other, loss=3.0) == Evaluation(loss=3.0, metrics={"mae": 2.0})
    with pytest.raises(TypeError, match="needs a loss"):
        Evaluation(0.5)
    with pytest.raises(TypeError, match="needs a loss"):
        Evaluation(metrics={"mae": 1.0})


@pytest.mark.parametrize("name", ["", "1st", "a b", "x" * 41, "r²", "a\n", 3])
def test_names_that_no_metric_has(name: Any) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a metric"):
        Metric(name)


def test_a_loss_is_to_be_low() -> None:
    with pytest.raises(ValueError, match="a loss is to be low"):
        Metric("loss")


def test_which_way_is_better() -> None:
    up, down = Metric("r2"), Metric("mae", higher_is_better=False)
    assert up.reaches(0.5, 0.5) and up.reaches(0.6, 0.5) and not up.reaches(0.4, 0.5)
    assert down.reaches(0.5, 0.5) and down.reaches(0.4, 0.5) and not down.reaches(0.6, 0.5)
    assert (up.better(1.0, 2.0), down.better(1.0, 2.0)) == (2.0, 1.0)
    for metric in (up, down):
        assert not metric.reaches(nan, 0.5)
        assert metric.better(nan, 1.0) == metric.better(1.0, nan) == 1.0


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (Metric(), 0.96666, "0.9667"), (Metric("r2"), 0.5, "0.5000"), (Metric("f1"), 1.0, "1.000"),
        (LOSS, 12345.6, "1.235e+04"), (LOSS, 1234.4, "1234"), (LOSS, 0.00001234, "1.234e-05"),
        (LOSS, nan, "NaN"), (Metric(), None, "NaN"), (LOSS, -inf, "-inf"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(metric: Metric, value: float | None, text: str) -> None:
    assert metric.written(value) == text


def returning(found: Any, metric: Metric = TASK.metric) -> Evaluation:
    return evaluated(replace(TASK, evaluate=lambda *_: found, metric=metric), nn.Linear(1, 1), None)


@pytest.mark.parametrize("number", [np.float32, np.float64, torch.tensor, lambda x: np.array([x])])
def test_numbers_of_numpy_and_torch_become_floats(number: Callable[[float], Any]) -> None:
    found = returning(Evaluation(number(0.5), number(0.25), {"f1": number(1.5)}))
    assert found == Evaluation(0.5, 0.25, {"f1": 1.5})
    assert all(type(value) is float for value in (found.loss, *found.metrics.values()))


def test_a_task_may_have_no_metric_but_the_loss() -> None:
    assert returning(Evaluation(loss=2.0), LOSS) == Evaluation(loss=2.0)


def test_what_is_not_finite_is_a_number_too() -> None:
    assert isnan(returning(Evaluation(nan, inf)).accuracy)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "evaluate returned None; it must return a fedaq.tasks.Evaluation(accuracy, loss) "),
        ((0.5, 1.0), "evaluate returned a tuple; it must return"),
        (np.float32(0.5), "evaluate returned a float32; it must return"),
        (torch.tensor(0.5), "evaluate returned a Tensor; it must return"),
        (Evaluation("good", 1.0), "evaluate returned a str as accuracy; a float is needed"),  # type: ignore[arg-type]
        (Evaluation(0.5, 1j), "evaluate returned a complex as loss; a float is needed"),  # type: ignore[arg-type]
        (Evaluation(torch.zeros(2, 3), 1.0), "returned 2x3 numbers as accuracy; a float"),  # type: ignore[arg-type]
        (Evaluation(loss=1.0), "evaluate returned no metric, and the task's metric is accuracy; "),
        (Evaluation(None, 1.0), "evaluate returned no metric, and"),
        (
            Evaluation(loss=1.0, metrics={"mae": 1.0, "r2": 0.5}),
            "evaluate returned mae, r2, and the task's metric is accuracy; return that, or say "
            "which one is to be reached: Task(metric=Metric(name, higher_is_better=...))",
        ),
        (Evaluation(0.5, 1.0, {"a b": 1.0}), "returned a metric called 'a b'; a name is a letter"),
        (Evaluation(0.5, 1.0, {3: 1.0}), "returned a metric called 3; a name is"),  # type: ignore[dict-item]
        (Evaluation(0.5, 1.0, {"loss": 1.0}), "a metric called loss; that is Evaluation(loss=...)"),
        (Evaluation(0.5, 1.0, {f"m{n}": 1.0 for n in range(32)}), "33 metrics; 32 are the most"),
    ],
)
def test_anything_else_is_the_tasks_mistake(found: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        returning(found)
    assert str(caught.value).startswith("task small: ")
    assert "\n" not in str(caught.value)


def test_a_test_that_fails_is_told_in_one_line() -> None:
    def evaluate(model: nn.Module, data: Any) -> Evaluation:
        raise ValueError("first line\nsecond line")

    with pytest.raises(UserError, match=r"^task small: evaluate failed: ValueError: first line; "):
        evaluated(replace(TASK, evaluate=evaluate), nn.Linear(1, 1), None)
