"""What `fedaq check-task` says of broken tasks: each mistake in one sentence, with the remedy."""

import random
import re
from collections.abc import Callable, Sized
from dataclasses import dataclass, field, replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from typer.testing import CliRunner

from fedaq.cli import checkup
from fedaq.errors import UserError
from fedaq.settings import load_settings
from fedaq.tasks import BUILT_IN, Evaluation, Examples, Task, Training
from fedaq.tasks.partition import WHOLE, Partition
from fedaq_client.cli import task_check
from fedaq_client.cli.task_check import Checked, Kind, check
from odd_models import REFUSED

GOOD = Task(
    name="good",
    model=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
    train_data=lambda data: examples(40),
    test_data=lambda data: examples(20),
)


OTHER_ORDER = (
    "train_data gives other examples or another order when it is called again: with --partition "
    "some would go to two clients and some to none; sort file names, and draw nothing at random"
)
DOUBTS = (
    "train gives another update from the same start and seed; draw with the seed that it is "
    "given, or runs cannot be repeated"
)
OTHER_CLASSES = "the task states 3 classes; the model has 4 outputs, one for each is needed"
NO_TEST_DATA = "no test data here, which only the server needs: task x: --data DIR must hold a.csv"


def examples(count: int) -> Examples:
    inputs = torch.arange(4.0 * count).reshape(count, 4).sin()
    return Examples(inputs, torch.arange(count) % 3)


def changed(**changes: Any) -> Examples:
    return replace(examples(40), **changes)


def checked(task: Task, part: Partition = WHOLE, **flags: Any) -> Checked:
    names = {name.replace("__", "."): value for name, value in flags.items()}
    return check(task, load_settings(environment={}, flags=names), part)


def sentences(result: Checked, kind: Kind) -> list[str]:
    return [finding.sentence for finding in result.findings if finding.kind is kind]


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


# ---- Models --------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self, parameter: Callable[[Any], nn.Parameter]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.last.weight = parameter(self.first.weight)

    def forward(self, inputs: Tensor) -> Any:
        return self.last(self.first(inputs))


def numpy_weights() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.weight.data = torch.from_numpy(np.random.rand(3, 4).astype(np.float32))
    return layer


def not_finite() -> nn.Module:
    layer = nn.Linear(4, 3)
    nn.init.constant_(layer.bias, inf)
    return layer


def frozen(*names: str) -> nn.Module:
    torch_model = GOOD.model()
    for name, weight in torch_model.named_parameters():
        weight.requires_grad = name not in names
    return torch_model


def failing(*arguments: Any) -> Any:
    raise ValueError("no such layer\nsecond line")


class Counted(nn.Module):
    """Anything with one weight, whose output is made by a function."""

    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight, self.made = nn.Parameter(torch.ones(1)), made

    def forward(self, inputs: Tensor) -> Any:
        return self.made(inputs * self.weight)


MODELS: list[tuple[Callable[[], Any], str]] = [
    (failing, "model() failed: ValueError: no such layer"),
    (lambda: "a model", "model: model() must return a torch.nn.Module, and returned str"),
    (
        lambda: nn.Linear(4, 3).double(),
        "model: tensor weight is torch.float64; every tensor must be float32; .float() makes it so",
    ),
    (
        nn.ReLU,
        "model: it has no float32 value to train; let model() return a module with parameters",
    ),
    (
        lambda: nn.Linear(4, 3, device="meta"),
        "model: tensor weight is on device meta, not in the processor's memory; build the model "
        "there, and let train move it and back",
    ),
    (
        lambda: nn.Linear(4, random.randint(3, 900)),
        "model() returns another model when it is called again: tensor 1 is weight",
    ),
    (
        numpy_weights,
        "model() gives other weights each time (weight): draw them with torch, whose seed is set "
        "before the call, and not with numpy or random, so that all begin alike",
    ),
    (not_finite, "model(): tensor bias has NaN or infinity"),
    (
        lambda: Tied(lambda weight: nn.Parameter(weight.data.t())),
        "model: first.weight and last.weight share memory but are not the same view of it, and "
        "would part from one another; .clone() parts them, and to tie weights, give both modules "
        "the same nn.Parameter",
    ),
    (
        lambda: frozen("0.weight", "0.bias", "2.weight", "2.bias"),
        "model(): no parameter has requires_grad, so there is nothing to train",
    ),
    (
        lambda: nn.Linear(5, 3),
        "the model does not take its inputs, float32 32x4, the first number being the batch: "
        "RuntimeError: ",
    ),
    (
        lambda: Counted(lambda inputs: inputs.sum(dim=1)),
        "the model gives 32 for 32 inputs; 32x(number of classes) is needed, or a train and an "
        "evaluate of the task's own",
    ),
    (lambda: Counted(lambda inputs: (inputs, 1)), "the model gives a tuple for 32 inputs; "),
    (
        lambda: Counted(lambda inputs: inputs / 0),
        "the model gives NaN or infinity before any training; look at the inputs",
    ),
    (
        lambda: nn.Linear(4, 2),
        "the training data has labels 0 to 2; the model has 2 outputs, so labels must be 0 to 1",
    ),
]


@pytest.mark.parametrize(("model", "sentence"), MODELS)
def test_wrong_models(model: Callable[[], Any], sentence: str) -> None:
    result = checked(replace(GOOD, model=model))
    assert not result.is_ready
    assert sentences(result, Kind.WRONG)[0].startswith(sentence)


def test_a_task_has_a_name_for_each_output() -> None:
    task = replace(GOOD, classes=("low", "middle", "high"))
    assert checked(task).is_ready
    other = replace(task, model=lambda: nn.Linear(4, 4))
    assert sentences(checked(other), Kind.WRONG) == [OTHER_CLASSES]


def test_what_is_peculiar_is_told_and_not_wrong() -> None:
    def model() -> nn.Module:
        tied = Tied(lambda weight: nn.Parameter(weight.data))
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), tied)

    data = replace(GOOD, model=model)
    result = checked(data)
    assert result.is_ready
    assert sentences(result, Kind.DOUBTFUL) == [
        "1: running_mean and running_var are sent and averaged like weights, and coarse codes can "
        "make a variance negative (NaN); GroupNorm or LayerNorm have none"
    ]
    assert sentences(result, Kind.NOTE) == [
        "1.num_batches_tracked: not floating-point, so not sent; it stays as it is on every side",
        "2.last.weight: tied to a tensor before it, and sent with it",
    ]
    some = checked(replace(GOOD, model=lambda: frozen("0.weight")))
    assert sentences(some, Kind.NOTE) == [
        "0.weight: frozen; it costs a few bytes of header in every round"
    ]


def test_weights_in_another_memory_format_are_fine() -> None:
    def model() -> nn.Module:
        layers = nn.Sequential(nn.Unflatten(1, (2, 2, 1)), nn.Conv2d(2, 3, (2, 1)), nn.Flatten())
        return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    assert not model().get_parameter("1.weight").is_contiguous()
    assert checked(replace(GOOD, model=model)).findings == []


def test_a_model_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "free_memory", lambda: 1000)
    result = checked(GOOD)
    assert result.is_ready
    (sentence,) = sentences(result, Kind.DOUBTFUL)
    assert sentence.startswith("67 parameters: about 0 MB more beside the ")
    assert "; take a smaller model or raise the limit" in sentence


# ---- Data ----------------------------------------------------------------------


class Pairs(Dataset[Any]):
    """A data set of whatever is given."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def refusing(data: Path | None) -> Sized:
    raise UserError("task x: --data DIR must hold a.csv")


DATA: list[tuple[Callable[[Path | None], Any], str]] = [
    (refusing, "task x: --data DIR must hold a.csv"),
    (
        lambda data: [1][data / "x"],  # type: ignore[index,operator]
        "train_data(None) failed: TypeError: unsupported operand type(s) for /: 'NoneType' and "
        "'str'; if it needs a folder, say which with --data",
    ),
    (lambda data: iter([]), "train_data returned a list_iterator; return Examples or a Dataset"),
    (lambda data: None, "train_data returned None; return Examples or a Dataset"),
    (lambda data: examples(0), "train_data is empty; at least one example is needed"),
    (
        lambda data: changed(targets=torch.zeros(39, dtype=torch.int64)),
        "train_data: 40 inputs and 39 targets; each input needs one target",
    ),
    (
        lambda data: changed(inputs=torch.full((40, 4), nan)),
        "the training data has inputs with NaN or infinity; leave them out",
    ),
    (
        lambda data: changed(inputs=torch.zeros(40, 4, dtype=torch.uint8)),
        "the model does not take its inputs: inputs are torch.uint8 and weights float32: let "
        "train_data return .float(), or let the model begin with fedaq.tasks.Normalise (",
    ),
    (
        lambda data: changed(inputs=torch.zeros(40, 4, dtype=torch.float64)),
        "the model does not take its inputs: inputs are torch.float64 and weights float32: let "
        "train_data return .float() (",
    ),
    (
        lambda data: changed(targets=torch.zeros(40)),
        "the training data has labels torch.float32 32 for 32 inputs; int64 32 is needed, one "
        "class number each",
    ),
    (
        lambda data: changed(targets=torch.zeros(40, 3, dtype=torch.int64)),
        "the training data has labels torch.int64 32x3 for 32 inputs; int64 32 is needed",
    ),
    (
        # Beyond the first batch.
        lambda data: changed(targets=torch.cat([torch.zeros(39), torch.ones(1) * 7]).long()),
        "the training data has labels 0 to 7; the model has 3 outputs, so labels must be 0 to 2",
    ),
    (
        lambda data: changed(targets=torch.arange(40) % 3 - 1),
        "the training data has labels -1 to 1; the model has 3 outputs, so labels must be 0 to 2",
    ),
    (
        lambda data: Pairs(torch.zeros(4)),
        "the training data yields a Tensor; a pair (input, label) is needed, or a train and an "
        "evaluate of the task's own",
    ),
    (
        lambda data: Pairs((torch.zeros(4), "cat")),
        "the training data yields a Tensor and a str; a tensor and a class number are needed",
    ),
    (
        lambda data: Pairs((torch.zeros(4), 1), (torch.zeros(5), 1)),
        "the training data makes no batch: RuntimeError: ",
    ),
]


@pytest.mark.parametrize(("data", "sentence"), DATA)
def test_wrong_training_data(data: Callable[[Path | None], Any], sentence: str) -> None:
    result = checked(replace(GOOD, train_data=data))
    assert sentences(result, Kind.WRONG)[0].startswith(sentence)


class Raising(Dataset[Any]):
    """A data set whose methods fail, except those that are left out."""

    def __init__(self, *names: str, length: int = 40) -> None:
        self.names, self.length = names, length

    def __len__(self) -> int:
        return failing() if "len" in self.names else self.length

    def __getitem__(self, index: int) -> Any:
        return failing() if "item" in self.names else (torch.ones(4), 1)

    @property
    def targets(self) -> Any:
        return failing() if "targets" in self.names else [1] * self.length


@pytest.mark.parametrize(("name", "train", "test"), [
    ("len", "len() of what train_data returned", "len() of what test_data returned failed:"),
    ("item", "taking an example of train_data", "the test data makes no batch:"),
    ("targets", "train_data's targets", "the test data's targets failed:"),
])  # fmt: skip
@pytest.mark.parametrize("part", [WHOLE, Partition(0, 2)])
def test_data_sets_that_fail(name: str, train: str, test: str, part: Partition) -> None:
    assert checked(replace(GOOD, train_data=lambda data: Raising()), part).is_ready
    result = checked(replace(GOOD, train_data=lambda data: Raising(name)), part)
    assert sentences(result, Kind.WRONG) == [f"{train} failed: ValueError: no such layer"]
    result = checked(replace(GOOD, test_data=lambda data: Raising(name)), part)
    assert [(f.kind, f.sentence) for f in result.findings] == [
        (Kind.WRONG, f"{test} ValueError: no such layer")
    ]


def test_data_without_labels_or_parts() -> None:
    plain = TensorDataset(torch.zeros(40, 4), torch.arange(40) % 3)
    result = checked(replace(GOOD, train_data=lambda data: plain))
    assert result.is_ready
    assert sentences(result, Kind.NOTE) == [
        "train_data returns a TensorDataset without an attribute targets: only partition.kind iid "
        "can share it out"
    ]
    own = replace(
        GOOD, train_data=lambda data: [1, 2, 3], train=lambda model, *rest: descend(model)
    )
    sentence = (
        "train_data returns a list, of which --partition and fedaq run cannot give a part to each "
        "client; return Examples or a Dataset"
    )
    assert sentences(checked(own), Kind.DOUBTFUL) == [sentence]
    assert sentences(checked(own, Partition(0, 2)), Kind.WRONG)[0] == sentence


@pytest.mark.parametrize("part", [WHOLE, Partition(0, 2)])
def test_data_in_another_order_each_time(part: Partition) -> None:
    def shuffled(data: Path | None) -> Examples:
        order = torch.from_numpy(np.random.permutation(40))
        return Examples(examples(40).inputs[order], examples(40).targets[order])

    kind = Kind.DOUBTFUL if part == WHOLE else Kind.WRONG
    result = checked(replace(GOOD, train_data=shuffled), part)
    assert sentences(result, kind) == [OTHER_ORDER]

    def other_images(data: Path | None) -> Pairs:
        return Pairs(*[(torch.from_numpy(np.random.rand(4).astype("f4")), 1)] * 3)

    assert sentences(checked(replace(GOOD, train_data=other_images), part), kind) != []


def test_more_parts_than_examples() -> None:
    result = checked(GOOD, Partition(0, 50))
    assert sentences(result, Kind.WRONG) == [
        "--partition: 40 examples cannot be shared among 50 clients"
    ]


# ---- Training and testing ------------------------------------------------------


def descend(model: nn.Module, *, noise: float = 0.0) -> float:
    with torch.no_grad():
        for weight in model.parameters():
            weight.sub_(0.01 + noise * random.random())
    return 1.0


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
        "evaluate returned a tuple; it must return a fedaq.tasks.Evaluation(accuracy, loss)",
    ),
    (
        lambda *_: Evaluation(torch.zeros(()), 1.0),  # type: ignore[arg-type]
        "evaluate returned a Tensor as accuracy; a float is needed",
    ),
    (lambda *_: Evaluation(97.0, 1.0), "evaluate returned accuracy 97; it is a share, from 0 to 1"),
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
    said += [DOUBTS, NO_TEST_DATA, OTHER_ORDER, OTHER_CLASSES]
    said += [sentence for _, sentence in REFUSED.values()]
    text = (Path(__file__).parents[2] / "docs" / "tutorials" / "bring-your-own.md").read_text()
    table = text.partition("| it says |")[2].partition("\n\n")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 10
    assert [quote for quote in quoted if not any(quote in sentence for sentence in said)] == []


# ---- The command ---------------------------------------------------------------


@dataclass
class Told:
    """What the command said, and how it ended."""

    code: int
    out: str = ""
    lines: list[str] = field(default_factory=list)


def command(
    *arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch, source: str = ""
) -> Told:
    import sys

    import typer

    from fedaq_client.cli.check_task import check_task

    (folder / "mine.py").write_text(source)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    app = typer.Typer()
    app.command()(check_task)
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, UserError):
        return Told(2, str(result.exception))
    return Told(result.exit_code, result.output, result.output.splitlines())


def test_the_exit_code_says_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = command("digits", "--partition", "1/3", folder=tmp_path, monkeypatch=monkeypatch)
    assert (good.code, good.lines[-1]) == (0, "ready")
    assert "17,226 values in 6 tensors" in good.out
    assert "479, 30 batches of 16" in good.out
    bits = [line.split() for line in good.lines if line.split()[:1] in (["32"], ["2"])]
    assert [row[1:3] for row in bits] == [["68.9", "kB"], ["4.40", "kB"]]
    source = "from fedaq.tasks import Task\ntask = Task('x', lambda: 1, list, list)\n"
    bad = command("mine:task", folder=tmp_path, monkeypatch=monkeypatch, source=source)
    sentence = "model: model() must return a torch.nn.Module, and returned int"
    assert (bad.code, bad.lines) == (
        1,
        [f"wrong: {sentence}", "1 thing is wrong"],
    )
    none = command("mine:no", folder=tmp_path, monkeypatch=monkeypatch, source="")
    assert (none.code, none.out) == (2, "task mine:no: mine has no 'no'")


def test_what_a_task_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def model() -> nn.Module:
        raise ValueError("\x1b[31m[bold]red[/bold]")

    task_check.show(checked(replace(GOOD, model=model)))
    said = capsys.readouterr().out
    assert "\x1b[31m" not in said
    assert "[bold]red[/bold]" in said
