"""What is wrong with a task: every step of a round is taken once, on one batch."""

import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import ceil, isfinite
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import default_collate

from fedaq.cli import checkup
from fedaq.codec import payload
from fedaq.codec.model import ModelSpec, spec_of
from fedaq.codec.quantizer import Floats, Range
from fedaq.energy.radios import PRESETS
from fedaq.errors import FedaqError, UserError
from fedaq.process.terminal import console, foreign, si
from fedaq.settings import Settings
from fedaq.tasks import (
    Evaluation,
    Examples,
    Task,
    Training,
    evaluate_classifier,
    initial_model,
    subset,
    train_classifier,
)
from fedaq.tasks.partition import WHOLE, Partition, labels_of
from fedaq_client.training import Learner, local_data

T = TypeVar("T")

WIDTHS = (32, 8, 4, 2)
TEST_EXAMPLES = 250
# BatchNorm and InstanceNorm have no public base.
_NORMS = nn.modules.batchnorm._NormBase


class Kind(StrEnum):
    """How bad a finding is."""

    WRONG = "wrong"
    DOUBTFUL = "doubtful"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One sentence about a task."""

    kind: Kind
    sentence: str


@dataclass(frozen=True)
class Facts:
    """What a task costs, as measured on this machine.

    Attributes
    ----------
    examples, batches : int
        Of this client, and of one epoch.
    batch_s : float
        Seconds that one batch took.
    """

    spec: ModelSpec
    training: Training
    examples: int
    batches: int
    batch_s: float


@dataclass
class Checked:
    """What came of a check; there are no facts if it could not come to its end."""

    findings: list[Finding] = field(default_factory=list)
    facts: Facts | None = None

    @property
    def is_ready(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.kind is not Kind.WRONG for finding in self.findings)

    def say(self, kind: Kind, sentence: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, " ".join(sentence.split())))


class BrokenError(Exception):
    """Something without which nothing further can be checked."""


def check(task: Task, settings: Settings, part: Partition) -> Checked:
    """Take every step of a round with a task, on one batch."""
    checked = Checked()
    torch.set_num_threads(1)
    try:
        spec = _check_model(task, settings.seed, checked)
        mine = _check_data(task, settings, part, checked)
        training = replace(task.training, **settings.training.model_dump(exclude_none=True))
        few = _first(mine, training.batch_size)
        if task.train is train_classifier:
            _check_batch(task, settings.seed, mine, few, "training")
        learner = Learner(task, few, settings.seed)
        batch_s = _check_training(learner, replace(training, local_epochs=1), checked)
        _check_test(task, settings, learner, checked)
        checked.facts = Facts(
            spec=spec,
            training=training,
            examples=len(mine),
            batches=ceil(len(mine) / training.batch_size),
            batch_s=batch_s,
        )
    except BrokenError as error:
        checked.say(Kind.WRONG, str(error))
    return checked


# ---- The model -----------------------------------------------------------------


def _check_model(task: Task, seed: int, checked: Checked) -> ModelSpec:
    module = _run("model()", initial_model, task, seed)
    spec = _run("model()", spec_of, module, task.classes)
    _check_repeatable(module, spec, _run("model()", initial_model, task, seed), task)
    for sentence in _peculiarities(module, spec):
        checked.findings.append(sentence)
    _check_memory(spec, checked)
    return spec


def _check_repeatable(module: nn.Module, spec: ModelSpec, again: nn.Module, task: Task) -> None:
    difference = spec.difference(_run("model()", spec_of, again, task.classes))
    if difference is not None:
        raise BrokenError(
            f"model() returns another model when it is called again: {difference}; all clients "
            "and the server must build the same"
        )
    one, other = module.state_dict(), again.state_dict()
    for tensor in spec.tensors:
        if not torch.equal(one[tensor.name], other[tensor.name]):
            raise BrokenError(
                f"model() gives other weights each time ({tensor.name}): draw them with torch, "
                "whose seed is set before the call, and not with numpy or random, so that all "
                "begin alike"
            )
        if not torch.isfinite(one[tensor.name]).all():
            raise BrokenError(f"model(): tensor {tensor.name} has NaN or infinity")


def _peculiarities(module: nn.Module, spec: ModelSpec) -> Iterator[Finding]:
    state = module.state_dict(keep_vars=True)
    sent = {tensor.name for tensor in spec.tensors}
    kept = [name for name, value in state.items() if not value.is_floating_point()]
    if kept:
        yield Finding(
            Kind.NOTE,
            f"{_listed(kept)}: not floating-point, so not sent; it stays as it is on every side",
        )
    tied = [n for n, v in state.items() if v.is_floating_point() and n not in sent]
    if tied:
        yield Finding(Kind.NOTE, f"{_listed(tied)}: tied to a tensor before it, and sent with it")
    frozen = [n for n, p in module.named_parameters() if not p.requires_grad and n in sent]
    if len(frozen) == len(list(module.parameters())):
        yield Finding(
            Kind.WRONG, "model(): no parameter has requires_grad, so there is nothing to train"
        )
    elif frozen:
        yield Finding(
            Kind.NOTE, f"{_listed(frozen)}: frozen; it costs a few bytes of header in every round"
        )
    norms = [
        name for name, part in module.named_modules()
        if isinstance(part, _NORMS) and part.running_var is not None
    ]  # fmt: skip
    if norms:
        yield Finding(
            Kind.DOUBTFUL,
            f"{_listed(norms)}: running_mean and running_var are sent and averaged like weights, "
            "and coarse codes can make a variance negative (NaN); GroupNorm or LayerNorm have none",
        )


def _check_memory(spec: ModelSpec, checked: Checked) -> None:
    found = checkup.memory(spec.parameters)
    if found.remedy:
        checked.say(Kind.DOUBTFUL, f"{found.says}; {found.remedy}")


# ---- The data ------------------------------------------------------------------


def _check_data(task: Task, settings: Settings, part: Partition, checked: Checked) -> Sized:
    everything = _load(task.train_data, "train_data", settings)
    if _count(everything, "train_data") == 0:
        raise BrokenError("train_data is empty; at least one example is needed")
    _check_lengths(everything, "train_data")
    try:
        with _calling("train_data's Dataset"):
            subset(everything, np.arange(1))
    except UserError:
        checked.say(
            Kind.WRONG if part != WHOLE else Kind.DOUBTFUL,
            f"train_data returns {_a(everything)}, of which --partition and fedaq run cannot give "
            "a part to each client; return Examples or a Dataset",
        )
        return everything
    _check_order(everything, _load(task.train_data, "train_data", settings), part, checked)
    try:
        with _calling("train_data's targets"):
            labels_of(everything)
    except UserError:
        checked.say(
            Kind.NOTE,
            f"train_data returns {_a(everything)} without an attribute targets: only "
            "partition.kind iid can share it out",
        )
    try:
        with _calling("train_data's Dataset"):
            mine = local_data(everything, part, settings.partition, settings.seed)
    except FedaqError as error:
        raise BrokenError(f"--partition: {error}") from None
    if len(mine) == 0:
        raise BrokenError("--partition: no example is left for this client")
    return mine


def _load(read: Callable[[Path | None], Sized], name: str, settings: Settings) -> Sized:
    data = settings.data
    try:
        found = read(data)
    except FedaqError as error:
        raise BrokenError(str(error)) from None
    except Exception as error:
        hint = "" if data is not None else "; if it needs a folder, say which with --data"
        raise BrokenError(f"{name}({data}) failed: {_said(error)}{hint}") from None
    if not hasattr(found, "__len__"):
        raise BrokenError(f"{name} returned {_a(found)}; return Examples or a Dataset")
    return found


def _count(data: Sized, name: str) -> int:
    return _run(f"len() of what {name} returned", len, data)


def _check_lengths(data: Sized, name: str) -> None:
    if isinstance(data, Examples) and len(data.inputs) != len(data.targets):
        raise BrokenError(
            f"{name}: {len(data.inputs)} inputs and {len(data.targets)} targets; each input "
            "needs one target"
        )


def _check_order(data: Sized, again: Sized, part: Partition, checked: Checked) -> None:
    """Clients find their parts by number, so all must have the same order."""
    same = len(data) == len(again)
    if same and isinstance(data, Examples) and isinstance(again, Examples):
        same = torch.equal(data.targets, again.targets) and _equal(data.inputs, again.inputs)
    elif same:
        ends = (0, len(data) - 1)
        with _calling("taking an example of train_data"):
            one, other = ([d[i] for i in ends] for d in (data, again))  # type: ignore[index]
        same = all(map(_equal, _tensors(one), _tensors(other)))
    if not same:
        checked.say(
            Kind.WRONG if part != WHOLE else Kind.DOUBTFUL,
            "train_data gives other examples or another order when it is called again: with "
            "--partition some would go to two clients and some to none; sort file names, and "
            "draw nothing at random",
        )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(
            torch.equal(one.nan_to_num(), other.nan_to_num())
            if one.is_floating_point()
            else torch.equal(one, other)
        )
    return True


def _tensors(items: Sequence[Any]) -> list[Any]:
    return [value for item in items for value in (item if isinstance(item, tuple | list) else ())]


def _first(data: Sized, count: int) -> Sized:
    try:
        return subset(data, np.arange(min(count, len(data))))
    except UserError:
        return data


# ---- One batch -----------------------------------------------------------------


def _check_batch(task: Task, seed: int, data: Sized, few: Sized, part: str) -> None:
    """Check what `train_classifier` and `evaluate_classifier` take for granted."""
    inputs, targets = _batch(few, part)
    module = initial_model(task, seed)
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        raise BrokenError(f"the {part} data has inputs with NaN or infinity; leave them out")
    try:
        with torch.no_grad():
            scores = module(inputs)
    except Exception as error:
        raise BrokenError(_why_not(module, inputs, error)) from None
    count = len(inputs)
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != count:
        got = f"{_shape(scores)}" if isinstance(scores, Tensor) else _a(scores)
        raise BrokenError(
            f"the model gives {got} for {count} inputs; {count}x(number of classes) is needed, "
            "or a train and an evaluate of the task's own"
        )
    labels = _labels(data, targets, part)
    if targets.dtype != torch.int64 or targets.shape != (count,):
        raise BrokenError(
            f"the {part} data has labels {targets.dtype} {_shape(targets)} for {count} inputs; "
            f"int64 {count} is needed, one class number each"
        )
    classes = scores.shape[1]
    if task.classes and len(task.classes) != classes:
        raise BrokenError(
            f"the task states {len(task.classes)} classes; the model has {classes} outputs, one "
            "for each is needed"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise BrokenError(
            f"the {part} data has labels {int(labels.min())} to {int(labels.max())}; the model "
            f"has {classes} outputs, so labels must be 0 to {classes - 1}"
        )
    if not torch.isfinite(scores).all():
        raise BrokenError("the model gives NaN or infinity before any training; look at the inputs")


def _batch(few: Any, part: str) -> tuple[Tensor, Tensor]:
    if isinstance(few, Examples):
        return few.inputs, few.targets
    try:
        items = [few[index] for index in range(len(few))]
        if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
            raise BrokenError(
                f"the {part} data yields {_a(items[0])}; a pair (input, label) is needed, or a "
                "train and an evaluate of the task's own"
            )
        inputs, targets = default_collate(items)
    except BrokenError:
        raise
    except Exception as error:
        raise BrokenError(f"the {part} data makes no batch: {_said(error)}") from None
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        raise BrokenError(
            f"the {part} data yields {_a(items[0][0])} and {_a(items[0][1])}; a tensor and a "
            "class number are needed"
        )
    return inputs, targets


def _labels(data: Any, targets: Tensor, part: str) -> Tensor:
    """Return all labels, where that costs nothing; else those of one batch."""
    if isinstance(data, Examples):
        return data.targets
    try:
        with _calling(f"the {part} data's targets"):
            return torch.from_numpy(labels_of(data))
    except UserError:
        return targets


def _why_not(module: nn.Module, inputs: Tensor, error: Exception) -> str:
    if inputs.dtype != torch.float32:
        hint = f"inputs are {inputs.dtype} and weights float32: let train_data return .float()"
        if inputs.dtype == torch.uint8:
            hint += ", or let the model begin with fedaq.tasks.Normalise"
        return f"the model does not take its inputs: {hint} ({_said(error)})"
    return (
        f"the model does not take its inputs, float32 {_shape(inputs)}, the first number being "
        f"the batch: {_said(error)}"
    )


# ---- Training and testing ------------------------------------------------------


def _check_training(learner: Learner, training: Training, checked: Checked) -> float:
    """Train twice from the same start; return the seconds that a batch takes."""
    start = learner.held
    first = _trained(learner, training, checked)
    started = time.monotonic()
    again = _trained(learner, training, checked)
    batch_s = time.monotonic() - started
    outside = _not_in(learner)
    if outside:
        checked.say(
            Kind.WRONG,
            f"train replaced tensor {outside} of the model; what is sent is the tensor that "
            "model() made: change it in place (weight.copy_, weight.sub_, an optimizer)",
        )
    elif not np.isfinite(first).all():
        bad = next(
            t.name for t, values in zip(
                learner.spec.tensors, learner.spec.split(first), strict=True
            ) if not np.isfinite(values).all()
        )  # fmt: skip
        checked.say(
            Kind.WRONG, f"training makes {bad} NaN or infinite; a lower learning rate may help"
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
        loss = learner.train(training, 1, "client-1", 1)
    except Exception as error:
        raise BrokenError(f"train failed on one batch: {_said(error)}") from None
    if not isinstance(loss, Real):
        raise BrokenError(
            f"train returned {_a(loss)}; it must return the mean loss, a float (loss.item())"
        )
    if not isfinite(loss) and all(f.kind is not Kind.WRONG for f in checked.findings):
        checked.say(
            Kind.WRONG,
            f"the training loss is {loss} after one batch; look at the inputs, or lower the "
            "learning rate",
        )
    return learner.weights.copy()


def _check_size(update: Floats, start: Floats, spec: ModelSpec, checked: Checked) -> None:
    largest, usual = float(np.abs(update).max()), float(np.abs(start).max())
    if largest > 10 * max(usual, 1.0):
        checked.say(
            Kind.DOUBTFUL,
            f"one batch changes a weight by {largest:.3g}, where the largest is {usual:.3g}; a "
            "lower learning rate may help",
        )


def _not_in(learner: Learner) -> str | None:
    """Return the name of a tensor that is no longer part of the flat memory."""
    begin, state = learner.weights.ctypes.data, learner.model.state_dict()
    for tensor, part in zip(learner.spec.tensors, learner.spec.slices, strict=True):
        value = state.get(tensor.name)
        if value is None or (value.numel() and value.data_ptr() != begin + 4 * part.start):
            return tensor.name
    return None


def _check_test(task: Task, settings: Settings, learner: Learner, checked: Checked) -> None:
    try:
        everything = _load(task.test_data, "test_data", settings)
        _check_lengths(everything, "test_data")
    except BrokenError as error:
        checked.say(Kind.DOUBTFUL, f"no test data here, which only the server needs: {error}")
        return
    if _count(everything, "test_data") == 0:
        raise BrokenError("test_data is empty; the server needs at least one example")
    few = _first(everything, TEST_EXAMPLES)
    if task.evaluate is evaluate_classifier:
        _check_batch(task, settings.seed, everything, few, "test")
    np.copyto(learner.weights, learner.held)
    evaluation = _run("evaluate", task.evaluate, learner.model, few)
    if not isinstance(evaluation, Evaluation):
        raise BrokenError(
            f"evaluate returned {_a(evaluation)}; it must return a "
            "fedaq.tasks.Evaluation(accuracy, loss)"
        )
    for name, value in vars(evaluation).items():
        if not isinstance(value, Real):
            raise BrokenError(f"evaluate returned {_a(value)} as {name}; a float is needed")
    if not 0 <= evaluation.accuracy <= 1:
        checked.say(
            Kind.WRONG,
            f"evaluate returned accuracy {evaluation.accuracy:g}; it is a share, from 0 to 1",
        )
    if not isfinite(evaluation.loss):
        checked.say(Kind.WRONG, f"evaluate returned loss {evaluation.loss} before any training")
    if not np.array_equal(learner.weights, learner.held):
        checked.say(Kind.WRONG, "evaluate changes the model; it must leave it as it is")


def _run(name: str, function: Callable[..., T], *arguments: Any) -> T:
    try:
        with _calling(name):
            return function(*arguments)
    except FedaqError as error:
        raise BrokenError(str(error)) from None


@contextmanager
def _calling(name: str) -> Iterator[None]:
    """Let fedaq's own errors through; any other is one of the task's code."""
    try:
        yield
    except (FedaqError, BrokenError):
        raise
    except Exception as error:
        raise BrokenError(f"{name} failed: {_said(error)}") from None


def _said(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _a(value: object) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "of no dimension"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


# ---- Words ---------------------------------------------------------------------


def show(checked: Checked) -> None:
    """Print what was found, and what the task costs."""
    if checked.facts is not None:
        _show_facts(checked.facts)
    styles = {Kind.WRONG: "bold red", Kind.DOUBTFUL: "yellow", Kind.NOTE: "dim"}
    for finding in checked.findings:
        console.print(f"[{styles[finding.kind]}]{finding.kind}:[/] {foreign(finding.sentence)}")
    wrong = sum(finding.kind is Kind.WRONG for finding in checked.findings)
    console.print(
        "ready" if wrong == 0 else f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong"
    )


def _show_facts(facts: Facts) -> None:
    spec, training = facts.spec, facts.training
    epoch_s = facts.batches * facts.batch_s
    table = Table(box=None, show_header=False)
    table.add_row("model", f"{spec.parameters:,} values in {len(spec.tensors)} tensors")
    table.add_row(
        "its memory on a client", f"{si(4 * checkup.MODELS_BESIDE * spec.parameters, 'B')} and more"
    )
    table.add_row(
        "examples", f"{facts.examples:,}, {facts.batches:,} batches of {training.batch_size}"
    )
    table.add_row("training", f"{si(facts.batch_s, 's')} a batch, {si(epoch_s, 's')} an epoch")
    round_s = training.local_epochs * epoch_s
    table.add_row("a round", f"{si(round_s, 's')}, local epochs: {training.local_epochs}")
    console.print(table)
    console.print(_transfers(spec))


def _transfers(spec: ModelSpec) -> Table:
    ranges = [Range(-1.0, 1.0)] * len(spec.tensors)  # any: they do not change the size
    table = Table(box=SIMPLE_HEAD, title="one transfer, and the energy to send it up")
    table.add_column("bits", justify="right")
    table.add_column("bytes", justify="right")
    for name in PRESETS:
        table.add_column(name, justify="right")
    for bits in WIDTHS:
        sent = payload.plan_payload(spec, (bits,) * len(spec.tensors), ranges).payload_bytes
        joules = (8 * sent * radio.cost().uplink_j_per_bit for radio in PRESETS.values())
        table.add_row(str(bits), si(sent, "B"), *(si(j, "J") for j in joules))
    return table
