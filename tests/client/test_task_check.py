"""What `fedaq check-task` says of broken training and testing, and of nothing that is right."""

import re
import threading
from collections.abc import Callable, Sized
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
from fedaq.tasks import (
    BUILT_IN,
    Evaluation,
    Task,
    Training,
    evaluate_classifier,
    train_classifier,
)
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
    model[2].weight = nn.Parameter(model[2].weight[:1] * 2)
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
    (
        replacing,
        "train failed on one batch: UserError: train replaced tensor 2.weight 3x8: it has shape "
        "(1, 8)",
    ),
    (
        without,
        "train failed on one batch: UserError: train replaced tensor 0.weight 8x4: it is gone",
    ),
]


@pytest.mark.parametrize(("train", "sentence"), TRAINS)
def test_wrong_training(train: Callable[..., Any], sentence: str) -> None:
    assert sentences(checked(replace(GOOD, train=train)), Kind.WRONG)[0].startswith(sentence)


def with_batch_norm(count: int) -> Task:
    return replace(
        GOOD,
        model=lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
        train_data=lambda data: examples(count),
        training=Training(batch_size=16),
    )


def by_the_book(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    """Train as many do, a batch of one included."""
    model.train()
    for indices in torch.arange(len(data)).split(training.batch_size):
        loss = nn.functional.cross_entropy(model(data.inputs[indices]), data.targets[indices])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), gradients, strict=True):
                weight.sub_(gradient, alpha=0.01)
    return 1.0


@pytest.mark.parametrize("count", [2, 16, 33, 34])
def test_the_last_batch_is_tried_and_the_built_in_training_takes_it(count: int) -> None:
    assert checked(with_batch_norm(count)).is_ready


def test_a_last_batch_of_one_that_a_training_does_not_take() -> None:
    own = replace(with_batch_norm(33), train=by_the_book)
    (sentence,) = sentences(checked(own), Kind.WRONG)
    assert sentence.startswith(
        "train failed where the last batch has 1 of 16 examples: ValueError: Expected more than 1"
    )
    assert sentence.endswith("let an example that is left over join the batch before it, as "
                             "train_classifier does")  # fmt: skip
    assert checked(replace(with_batch_norm(34), train=by_the_book)).is_ready


@pytest.mark.parametrize("flags", [{}, {"training__batch_size": 1}])
def test_a_batch_of_one_that_is_the_only_one_is_blamed_on_the_model(flags: Any) -> None:
    count = 33 if flags else 1
    (sentence,) = sentences(checked(with_batch_norm(count), **flags), Kind.WRONG)
    assert sentence.startswith("train failed on one batch: ValueError: Expected more than 1 value")
    assert sentence.endswith("BatchNorm cannot train on one example, GroupNorm and LayerNorm can")


def test_test_data_of_one_example() -> None:
    assert checked(replace(with_batch_norm(32), test_data=lambda data: examples(1))).is_ready


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


def test_training_and_testing_are_tried_where_a_run_does_them() -> None:
    """On a thread; what is bound to the thread that read the data would fail in every round."""
    there = threading.get_ident()

    def train(model: nn.Module, data: Sized, training: Training, seed: int) -> float:
        if threading.get_ident() != there:
            raise RuntimeError("another thread")
        return train_classifier(model, data, training, seed)

    def evaluate(model: nn.Module, data: Sized) -> Evaluation:
        if threading.get_ident() != there:
            raise RuntimeError("another thread")
        return evaluate_classifier(model, data)

    for step, task in (
        ("train failed on one batch", replace(GOOD, train=train)),
        ("evaluate failed", replace(GOOD, evaluate=evaluate)),
    ):
        found = sentences(checked(task), Kind.WRONG)
        assert found == [f"{step}: RuntimeError: another thread"]
