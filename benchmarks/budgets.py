"""What budgets buy on models of different kinds, from a 400th to a 20th of what fp32 takes.

    python benchmarks/budgets.py [--task NAME] [--seeds 1]

Trains ten small models, each with `fp32`, by default, and with budgets, and prints over the seeds:
the loss of the last test and the least of all tests, the metric, the rounds run, the bits per value
up and down, and how much of the budget was spent. A mark at the end of a row tells what failed: a
last loss above the least one by more than a tenth, where that of `fp32` is not (`loss`), or more
than 3 % unspent where no reason was given (`unspent`).
"""

import argparse
import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import norms
import torch
from rich.table import Table
from torch import Tensor, nn

from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq.tasks import Examples, Task, Training, load_task
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run

SHARES = (1 / 400, 1 / 150, 1 / 60, 1 / 20)
# What is left at the end, and what a loss may be above the least of its run.
UNSPENT, ABOVE = 0.03, 1.1


class _Pieces(nn.Module):
    """A hidden layer in 2,000 tensors: of each unit four pieces of its weights, and a bias."""

    UNITS, PIECES = 400, 4

    def __init__(self) -> None:
        super().__init__()
        rows = nn.Linear(64, self.UNITS)
        pieces = rows.weight.detach().reshape(self.UNITS * self.PIECES, -1)
        self.weights = nn.ParameterList(nn.Parameter(piece.clone()) for piece in pieces)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in range(self.UNITS))
        self.last = nn.Linear(self.UNITS, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        weights = torch.stack(list(self.weights)).reshape(self.UNITS, 64)
        hidden = nn.functional.linear(pixels, weights, torch.stack(list(self.biases)))
        scores: Tensor = self.last(torch.relu(hidden))
        return scores


class _Attending(nn.Module):
    """A small transformer over the rows of the digits."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(8, 32)
        self.places = nn.Parameter(0.1 * torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(32, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.layers(self.into(pixels.view(-1, 8, 8)) + self.places)
        scores: Tensor = self.last(hidden.mean(1))
        return scores


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 48, batch_first=True)
        self.last = nn.Linear(48, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden, _ = self.recurrent(pixels.view(-1, 8, 8))
        scores: Tensor = self.last(hidden[:, -1])
        return scores


@cache
def _trained_on_others() -> dict[str, Tensor]:
    """Return weights that know the digits upside down, for others to be tuned from."""
    torch.manual_seed(0)
    module, data = _Attending(), _digits.train_data(None)
    assert isinstance(data, Examples)
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    for _ in range(12):
        for batch in torch.randperm(len(data)).split(32):
            loss = nn.functional.cross_entropy(
                module(data.inputs[batch].flip(1)), data.targets[batch]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.state_dict()


def _tuned() -> nn.Module:
    module = _Attending()
    module.load_state_dict(_trained_on_others())
    return module


def _plain_regression() -> Task:
    """The regression by plain SGD, whose loss has nothing that keeps it in bounds."""
    return replace(_regression, training=Training(2, 16, 0.01, 0.5))


_digits, _regression = load_task("digits", None), load_task("regression", None)

# A task is found by its name, in this file.
digits = _digits
regression = _plain_regression()
logistic = replace(_digits, model=lambda: nn.Linear(64, 10))
group = norms.plain_group
batch = norms.plain_batch
mobile_group = norms.mobile_group
mobile_batch = norms.mobile_batch
pieces = replace(_digits, model=_Pieces)
tuned = replace(_digits, model=_tuned, training=Training(2, 16, 1e-4, optimizer="adamw"))
recurrent = replace(_digits, model=_Recurrent, training=Training(2, 16, 0.2, 0.5))


@dataclass(frozen=True)
class Federation:
    """Who trains a task, and for how long."""

    clients: int
    rounds: int


TASKS = {
    "digits": Federation(5, 20),
    "regression": Federation(3, 30),
    "logistic": Federation(10, 15),
    "group": Federation(3, 12),
    "batch": Federation(3, 12),
    "mobile_group": Federation(3, 10),
    "mobile_batch": Federation(3, 10),
    "pieces": Federation(3, 5),
    "tuned": Federation(3, 15),
    "recurrent": Federation(4, 12),
}


@dataclass(frozen=True)
class Result:
    """What a run came to; joules are those that were spent."""

    loss: float
    least: float
    metric: float
    rounds: int
    bits_up: float
    bits_down: float
    joules: float
    reasons: tuple[str, ...]


class _Reasons(logging.Handler):
    """Keeps what the planner of a budget has to say."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("fedaq_server.schemes"):
            self.said.append(record.getMessage())


def trained(task: str, seed: int, assignments: Sequence[str]) -> Result:
    """Run one federation."""
    federation = TASKS[task]
    settings = load_settings(
        environment={},
        flags={
            "task": f"budgets:{task}",
            "clients": federation.clients,
            "rounds": federation.rounds,
            "seed": seed,
        },
        assignments=list(assignments),
    )
    reasons = _Reasons()
    logging.getLogger().addHandler(reasons)
    try:
        with TemporaryDirectory() as folder:
            run = Run(settings, Ledger(Path(folder)), lambda record: None)
            asyncio.run(federate(run))
            records, metric = run.records, run.task.metric.name
    finally:
        logging.getLogger().removeHandler(reasons)
    return Result(
        records[-1].test_loss,
        min(record.test_loss for record in records),
        records[-1].value(metric),
        len(records),
        mean(record.uplink_bits for record in records),
        mean(record.downlink_bits for record in records),
        sum(record.energy_j for record in records),
        tuple(reasons.said),
    )


def _failed(runs: Sequence[Result], fp32: Sequence[Result], budget_j: float | None) -> str:
    marks = []
    rises = [run.loss / run.least for run in fp32]
    if any(run.loss > ABOVE * run.least * max(1.0, *rises) for run in runs):
        marks.append("loss")
    if budget_j and any(run.joules < (1 - UNSPENT) * budget_j and not run.reasons for run in runs):
        marks.append("unspent")
    return " ".join(marks)


def show(task: str, seeds: int, shares: Sequence[float]) -> None:
    """Train a task in all ways, and print what came of it."""
    federation = TASKS[task]
    found = Table(
        title=f"{task}: {federation.clients} clients, at most {federation.rounds} rounds", box=None
    )
    for column in ("settings", "loss", "least", "metric", "rounds", "up", "down", "spent", "fails"):
        found.add_column(column, justify="right", no_wrap=True)

    def add(way: str, runs: Sequence[Result], budget_j: float | None = None) -> None:
        joules = mean(run.joules for run in runs)
        found.add_row(
            way,
            f"{mean(run.loss for run in runs):.4g}",
            f"{mean(run.least for run in runs):.4g}",
            f"{mean(run.metric for run in runs):.4f}",
            f"{mean(run.rounds for run in runs):.0f}",
            f"{mean(run.bits_up for run in runs):.2f}",
            f"{mean(run.bits_down for run in runs):.2f}",
            f"{joules / budget_j:.1%}" if budget_j else f"{joules:.3g} J",
            _failed(runs, fp32, budget_j),
        )

    def runs_of(*assignments: str) -> list[Result]:
        return [trained(task, seed, assignments) for seed in range(1, seeds + 1)]

    fp32 = runs_of("scheme=fp32")
    add("fp32", fp32)
    add("default", runs_of())
    said: list[str] = []
    for share in shares:
        budget_j = float(f"{share * mean(run.joules for run in fp32):.3g}")
        runs = runs_of(f"energy.budget_j={budget_j}")
        add(f"{budget_j:g} J", runs, budget_j)
        said += [f"{budget_j:g} J: {line}" for run in runs for line in run.reasons]
    console.print(found)
    for line in said:
        console.print(line, soft_wrap=True)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", choices=TASKS, action="append", help="one of them only")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Losses that are not finite are in the tables.
    logging.getLogger().addHandler(logging.NullHandler())
    for task in options.task or TASKS:
        show(task, options.seeds, SHARES)


if __name__ == "__main__":
    main()
