"""What `fedaq check-task` says of broken training and testing, and of nothing that is right."""

import re
from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from client.checked_tasks import (
    DOUBTS,
    GOOD,
    NO_TEST_DATA,
    OTHER_CLASSES,
    OTHER_ORDER,
    changed,
    checked,
    descend,
    examples,
    failing,
    sentences,
)
from client.test_task_check_data import BROKEN_EXAMPLE, DATA, refusing
from client.test_task_check_model import MODELS
from fedaq.tasks import BUILT_IN, Evaluation, Training
from fedaq.tasks.partition import WHOLE, Partition
from fedaq_client.cli.task_findings import Kind
from odd_models import REFUSED


def test_nothing_is_wrong_with_a_good_task() -> None:
    result = checked(GOOD)
    assert (result.findings, result.is_ready) == ([], True)
    assert result.facts is not None
    assert (result.facts.spec.parameters, result.facts.examples) == (67, 40)
    assert (result.facts.batches, result.facts.training.batch_size) == (2, 32)


@pytest.mark.parametrize("part", [WHOLE, Partition(1, 3)])
def test_nothing_is_wrong_with_digits(part: Partition) -> None:
    from fedaq.tasks import load_task

    assert checked(load_task("digits", None), part).findings == []
    assert "digits" in BUILT_IN


# ---- Training and testing ------------------------------------------------------


def replacing(model: Any, *rest: Any) -> float:
    model[2].weight = nn.Parameter(model[2].weight * 2)
    return 1.0


def without(model: nn.Module, *rest: Any) -> float:
    del model[0]  # type: ignore[operator]
    return 1.0


def diverging(model: nn.Module, *rest: Any) -> float:
    with torch.no_grad():
        model.get_parameter("2.bias").fill_(nan)
    return 1.0


TRAINS: list[tuple[Callable[..., Any], str]] = [
    (failing, "train failed on one batch: ValueError: no such layer"),
    (lambda *_: None, "train returned None; it must return the mean loss, a float (loss.item())"),
    (lambda *_: torch.zeros(()), "train returned a Tensor; it must return the mean loss"),
    (
        lambda model, *_: descend(model) * nan,
        "the training loss is nan after one batch; look at the inputs, or lower the learning rate",
    ),
    (diverging, "training makes 2.bias NaN or infinite; a lower learning rate may help"),
    (
        lambda *_: 1.0,
        "train changes nothing: are the gradients zero, the learning rate 0, or is it another "
        "model that is trained?",
    ),
    (replacing, "train replaced tensor 2.weight of the model; what is sent is the tensor that "),
    (without, "train replaced tensor 0.weight of the model; "),
]


@pytest.mark.parametrize(("train", "sentence"), TRAINS)
def test_wrong_training(train: Callable[..., Any], sentence: str) -> None:
    assert sentences(checked(replace(GOOD, train=train)), Kind.WRONG)[0].startswith(sentence)


def test_doubtful_training() -> None:
    noisy = replace(GOOD, train=lambda model, *_: descend(model, noise=0.1))
    assert sentences(checked(noisy), Kind.DOUBTFUL) == [DOUBTS]
    wild = checked(replace(GOOD, training=Training(learning_rate=1000.0)))
    (sentence,) = sentences(wild, Kind.DOUBTFUL)
    assert sentence.startswith("one batch changes a weight by ")
    assert sentence.endswith("a lower learning rate may help")


def spoiling(model: nn.Module, data: Any) -> Evaluation:
    descend(model)
    return Evaluation(0.5, 1.0)


EVALUATIONS: list[tuple[Callable[..., Any], str]] = [
    (failing, "evaluate failed: ValueError: no such layer"),
    (
        lambda *_: (0.5, 1.0),
        "evaluate returned a tuple; it must return a fedaq.tasks.Evaluation(accuracy, loss) or "
        "Evaluation(loss=..., metrics={...})",
    ),
    (
        lambda *_: Evaluation("good", 1.0),  # type: ignore[arg-type]
        "evaluate returned a str as accuracy; a float is needed",
    ),
    (
        lambda *_: Evaluation(97.0, 1.0),
        "evaluate returned accuracy 97; it is a share, from 0 to 1; let another number have its "
        "own name: Evaluation(loss=..., metrics={...})",
    ),
    (lambda *_: Evaluation(0.5, nan), "evaluate returned loss nan before any training"),
    (spoiling, "evaluate changes the model; it must leave it as it is"),
]


@pytest.mark.parametrize(("evaluate", "sentence"), EVALUATIONS)
def test_wrong_evaluation(evaluate: Callable[..., Any], sentence: str) -> None:
    result = checked(replace(GOOD, evaluate=evaluate))
    assert sentences(result, Kind.WRONG) == [sentence]


def test_test_data() -> None:
    absent = checked(replace(GOOD, test_data=refusing))
    assert absent.is_ready
    assert sentences(absent, Kind.DOUBTFUL) == [NO_TEST_DATA]
    empty = checked(replace(GOOD, test_data=lambda data: examples(0)))
    assert sentences(empty, Kind.WRONG) == [
        "test_data is empty; the server needs at least one example"
    ]
    labels = checked(replace(GOOD, test_data=lambda data: changed(targets=torch.arange(40))))
    assert sentences(labels, Kind.WRONG) == [
        "the test data has labels 0 to 39; the model has 3 outputs, so labels must be 0 to 2"
    ]


def test_the_document_quotes_what_is_said() -> None:
    said = [sentence for _, sentence in [*MODELS, *DATA, *TRAINS, *EVALUATIONS]]
    said += [BROKEN_EXAMPLE, DOUBTS, NO_TEST_DATA, OTHER_ORDER, OTHER_CLASSES]
    said += [sentence for _, sentence in REFUSED.values()]
    text = (Path(__file__).parents[2] / "docs" / "tutorials" / "bring-your-own.md").read_text()
    table = text.partition("| it says |")[2].partition("\n\n")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 10
    assert [quote for quote in quoted if not any(quote in sentence for sentence in said)] == []
