"""What is wrong with a task: every step of a round is taken once, on one batch.

The training is also tried with the batch that an epoch ends with, which may be a small one.
"""

import time
from collections.abc import Iterator, Sized
from dataclasses import replace
from math import ceil, isfinite
from numbers import Real

import numpy as np
import torch
from torch import nn

from fedaq.cli import checkup
from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats
from fedaq.metric import ACCURACY, LOSS
from fedaq.modules.policies import Policy, policies_of
from fedaq.settings import Settings
from fedaq.tasks import (
    Task,
    Training,
    evaluate_classifier,
    evaluated,
    initial_model,
    signature_of,
    train_classifier,
)
from fedaq.tasks.partition import Partition
from fedaq.tasks.task import a_type
from fedaq_client.cli.beside_grpc import in_a_round
from fedaq_client.cli.task_data import (
    check_batch,
    check_data,
    check_examples,
    check_lengths,
    first_of,
    length_of,
    load,
)
from fedaq_client.cli.task_findings import (
    BrokenError,
    Checked,
    Facts,
    Finding,
    Kind,
    call,
    listed,
    said,
)
from fedaq_client.cli.task_tensors import tensor_classes
from fedaq_client.sharing import divided
from fedaq_client.training import Learner

TEST_EXAMPLES = 250
# What to say where a batch of one example fails, and where it is the last one.
ALONE = "; BatchNorm cannot train on one example, GroupNorm and LayerNorm can"
JOIN = "; let an example that is left over join the batch before it, as train_classifier does"


def check(task: Task, settings: Settings, part: Partition) -> Checked:
    """Take every step of a round with a task, on one batch."""
    checked = Checked()
    torch.set_num_threads(1)
    try:
        spec = _check_model(task, settings, checked)
        mine = check_data(task, settings, part, checked)
        training = replace(task.training, **settings.training.model_dump(exclude_none=True))
        mine, held_back = call("train_data", divided, mine, task.validation_share, settings.seed)
        few = first_of(mine, training.batch_size)
        if task.train is train_classifier:
            check_batch(task, settings.seed, mine, few, "training")
        learner = Learner(task, few, settings.seed, start_from=settings.start_from)
        batch_s = _check_training(learner, replace(training, local_epochs=1), checked)
        classes = tensor_classes(learner)
        _check_last_batch(task, settings, mine, replace(training, local_epochs=1))
        _check_test(task, settings, learner, checked)
        if held_back is not None:
            learner.receive()
            own = first_of(held_back, TEST_EXAMPLES)
            call("evaluate", in_a_round, evaluated, task, learner.model, own)
        checked.facts = Facts(
            spec=spec,
            classes=classes,
            training=training,
            examples=len(mine),
            batches=ceil(len(mine) / training.batch_size),
            batch_s=batch_s,
        )
    except BrokenError as error:
        checked.say(Kind.WRONG, str(error))
    return checked


# ---- The model -----------------------------------------------------------------


def _check_model(task: Task, settings: Settings, checked: Checked) -> ModelSpec:
    beginning = (task, settings.seed, settings.start_from)
    module = call("model()", initial_model, *beginning)
    spec = call("model()", signature_of, task, module)
    _check_repeatable(module, spec, call("model()", initial_model, *beginning), task)
    for sentence in _peculiarities(task, module, spec):
        checked.findings.append(sentence)
    _check_memory(spec, checked)
    return spec


def _check_repeatable(module: nn.Module, spec: ModelSpec, again: nn.Module, task: Task) -> None:
    difference = spec.difference(call("model()", signature_of, task, again))
    if difference is not None:
        raise BrokenError(
            f"model() returns another model when it is called again: {difference}; all clients "
            "and the server must build the same"
        )
    one, other = module.state_dict(), again.state_dict()
    for tensor, _ in spec.named:
        if not torch.equal(one[tensor.name], other[tensor.name]):
            raise BrokenError(
                f"model() gives other weights each time ({tensor.name}): draw them with torch, "
                "whose seed is set before the call, and not with numpy or random, so that all "
                "begin alike"
            )


def _peculiarities(task: Task, module: nn.Module, spec: ModelSpec) -> Iterator[Finding]:
    state = module.state_dict(keep_vars=True)
    sent = {tensor.name for tensor, _ in spec.named}
    policies = policies_of(state, task.tensors)
    local = [name for name, policy in policies.items() if policy is Policy.LOCAL]
    if local:
        yield Finding(Kind.NOTE, f"{listed(local)}: not sent; each side keeps its own")
    frozen = [name for name, policy in policies.items() if policy is Policy.FROZEN]
    if frozen:
        yield Finding(
            Kind.NOTE,
            f"{listed(frozen)}: frozen, so never sent; a client joins if its own are the server's",
        )
    tied = [name for name in state if name not in {*sent, *local, *frozen}]
    if tied:
        yield Finding(Kind.NOTE, f"{listed(tied)}: tied to a tensor before it, and sent with it")
    narrow = [n for n in sent if state[n].dtype in (torch.float64, torch.complex128)]
    if narrow:
        yield Finding(
            Kind.NOTE, f"{listed(sorted(narrow))}: travels as float32, so it keeps 24 of 53 bits"
        )


def _check_memory(spec: ModelSpec, checked: Checked) -> None:
    found = checkup.memory(spec.parameters)
    if found.remedy:
        checked.say(Kind.DOUBTFUL, f"{found.says}; {found.remedy}")


# ---- Training and testing ------------------------------------------------------


def _check_training(learner: Learner, training: Training, checked: Checked) -> float:
    """Train twice from the same start; return the seconds that a batch takes."""
    start = learner.held
    first = _trained(learner, training, checked)
    started = time.monotonic()
    again = _trained(learner, training, checked)
    batch_s = time.monotonic() - started
    if not np.isfinite(first).all():
        named = learner.spec.named
        bad = next(t.name for t, part in named if not np.isfinite(first[part]).all())
        checked.say(
            Kind.WRONG, f"training makes {bad} NaN or infinite; a lower learning rate may help"
        )
    elif call("train", signature_of, learner.task, learner.model).frozen != learner.spec.frozen:
        checked.say(
            Kind.WRONG,
            "train changes tensors that are frozen, and so are never sent; let them have "
            "requires_grad in model(), or name them in the task: tensors={'name': 'coded'}",
        )
    elif not first.any():
        checked.say(
            Kind.WRONG,
            "train changes nothing: are the gradients zero, the learning rate 0, or is it another "
            "model that is trained?",
        )
    elif not np.array_equal(first, again):
        checked.say(
            Kind.DOUBTFUL,
            "train gives another update from the same start and seed; draw with the seed that it "
            "is given, or runs cannot be repeated",
        )
    else:
        _check_size(first, start, learner.spec, checked)
    return batch_s


def _trained(learner: Learner, training: Training, checked: Checked) -> Floats:
    try:
        loss = in_a_round(learner.train, training, 1, "client-1", 1)
    except Exception as error:
        hint = ALONE if learner.examples == 1 else ""
        raise BrokenError(f"train failed on one batch: {said(error)}{hint}") from None
    if not isinstance(loss, Real):
        raise BrokenError(
            f"train returned {a_type(loss)}; it must return the mean loss, a float (loss.item())"
        )
    if not isfinite(loss) and all(f.kind is not Kind.WRONG for f in checked.findings):
        checked.say(
            Kind.WRONG,
            f"the training loss is {loss} after one batch; look at the inputs, or lower the "
            "learning rate",
        )
    return learner.weights.copy()


def _check_last_batch(task: Task, settings: Settings, data: Sized, training: Training) -> None:
    """Train on a whole batch and on what an epoch over all the data would leave for its end."""
    left = len(data) % training.batch_size
    few = first_of(data, training.batch_size + left)
    if not left or len(few) == left or few is data:
        return
    try:
        learner = Learner(task, few, settings.seed, start_from=settings.start_from)
        learner.train(training, 1, "client-1", 1)
    except Exception as error:
        raise BrokenError(
            f"train failed where the last batch has {left} of {training.batch_size} examples: "
            f"{said(error)}{JOIN if left == 1 else ''}"
        ) from None


def _check_size(update: Floats, start: Floats, spec: ModelSpec, checked: Checked) -> None:
    largest, usual = float(np.abs(update).max()), float(np.abs(start).max())
    if largest > 10 * max(usual, 1.0):
        checked.say(
            Kind.DOUBTFUL,
            f"one batch changes a weight by {largest:.3g}, where the largest is {usual:.3g}; a "
            "lower learning rate may help",
        )


def _check_test(task: Task, settings: Settings, learner: Learner, checked: Checked) -> None:
    try:
        everything = load(task, "test_data", settings)
        check_lengths(everything, "test_data")
    except BrokenError as error:
        checked.say(Kind.DOUBTFUL, f"no test data here, which only the server needs: {error}")
        return
    if length_of(everything, "test_data") == 0:
        raise BrokenError("test_data is empty; the server needs at least one example")
    few = first_of(everything, TEST_EXAMPLES)
    if task.evaluate is evaluate_classifier:
        check_batch(task, settings.seed, everything, few, "test")
    learner.receive()
    evaluation = call("evaluate", in_a_round, evaluated, task, learner.model, few)
    if not 0 <= evaluation.metrics.get(ACCURACY, 0) <= 1:
        checked.say(
            Kind.WRONG,
            f"evaluate returned accuracy {evaluation.accuracy:g}; it is a share, from 0 to 1; let "
            "another number have its own name: Evaluation(loss=..., metrics={...})",
        )
    for name in dict.fromkeys((LOSS, task.metric.name)):
        value = {**evaluation.metrics, LOSS: evaluation.loss}[name]
        if not isfinite(value):
            checked.say(Kind.WRONG, f"evaluate returned {name} {value} before any training")
    check_examples(everything, "test_data", checked)
    if learner.differs():
        checked.say(Kind.WRONG, "evaluate changes the model; it must leave it as it is")
