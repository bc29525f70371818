"""Models with BatchNorm, GroupNorm and no norm, trained with fine codes and with coarse ones.

    python benchmarks/norms.py

Digits, 5 clients, one process. What BatchNorm keeps of the data, a running mean and variance,
travels like weights. The last column is the least running variance of the final model.
"""

import argparse
import asyncio
from collections.abc import Callable
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table
from torch import nn

from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq.tasks import Task, load_task
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run

SETTINGS: list[dict[str, object]] = [
    {"scheme": "fp32"},
    {"scheme": "fixed"},
    {"scheme": "fedaq"},
    {"energy.budget_j": 0.1},
]


def _task(norm: Callable[[int], nn.Module]) -> Task:
    return replace(
        load_task("digits", None),
        model=lambda: nn.Sequential(
            nn.Linear(64, 64), norm(64), nn.ReLU(),
            nn.Linear(64, 32), norm(32), nn.ReLU(), nn.Linear(32, 10),
        ),
    )  # fmt: skip


batch = _task(nn.BatchNorm1d)
group = _task(lambda channels: nn.GroupNorm(4, channels))
none = _task(lambda channels: nn.Identity())


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    table = Table()
    for column in ("norm", "settings", "accuracy", "test loss", "least variance"):
        table.add_column(column)
    for norm in ("batch", "group", "none"):
        for flags in SETTINGS:
            accuracy, loss, variance = _trained(norm, rounds, flags)
            words = ", ".join(f"{name}={value}" for name, value in flags.items())
            least = "-" if isnan(variance) else f"{variance:.3g}"
            table.add_row(norm, words, f"{accuracy:.4f}", f"{loss:.3g}", least)
    console.print(table)


def _trained(norm: str, rounds: int, flags: dict[str, object]) -> tuple[float, float, float]:
    # A task is found by its name, in this file.
    task = {"task": f"norms:{norm}", "rounds": rounds}
    settings = load_settings(environment={}, flags={**task, **flags})
    with TemporaryDirectory() as folder:
        run = Run(settings, Ledger(Path(folder)), lambda record: None)
        asyncio.run(federate(run))
    tensors = zip(run.spec.tensors, run.spec.split(run.federation.model), strict=True)
    variances = [values.min() for tensor, values in tensors if "running_var" in tensor.name]
    last = run.records[-1]
    return last.test_accuracy, last.test_loss, float(min(variances, default=nan))


if __name__ == "__main__":
    main()
