"""What the constants of the budget schemes are worth: one is changed, the others stay.

    python benchmarks/budget_constants.py

Trains the digits (5 clients, 30 rounds) at a tight and at an ample budget, for each value of each
constant, and prints means over the seeds: accuracy and loss of the last model, rounds run, and the
share of the budget that was spent. A star marks the value that the schemes have. Accuracies are of
360 images: what differs by 0.005 or less is noise.
"""

import argparse
import asyncio
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import ModuleType

from rich.table import Table

from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.schemes import coded, coded_round, expected, packed_budget, spending

SEEDS = 3


@dataclass(frozen=True)
class Form:
    """A budget scheme: its modules, how codes travel, two budgets, and values to try."""

    modules: tuple[ModuleType, ...]
    coding: tuple[str, ...]
    budgets_j: tuple[float, float]
    tried: dict[str, tuple[float, ...]]


FORMS = {
    "coded": Form(
        (coded, coded_round, expected, spending),
        (),
        (0.03, 0.15),
        {
            "DROWNED": (0.5, 1.0, 2.0, 4.0),
            "EASED": (1.0, 1.3, 1.6, 2.0),
            "MOST_DROWNED": (2.0, 3.0, 5.0, 8.0),
            "FIRST_SHARE": (0.1, 0.2, 0.3, 0.45, 0.7),
            "SLACK": (1.0, 1.5, 3.0, 6.0),
            "LAST_SHARE": (0.9, 0.95, 0.98, 1.0),
            "RISE": (0.01, 0.5, 1.0, 2.0),
            "SMOOTHING": (0.1, 0.25, 0.5, 1.0),
            "FIRST_UPDATE": (0.25, 0.5, 1.0, 2.0),
        },
    ),
    "packed": Form(
        (packed_budget,),
        ("coding.entropy=false", "coding.downlink=model"),
        (0.6, 1.2),
        {
            "NOISE_TO_SIGNAL": (0.25, 0.7, 2.0, 6.0, 20.0),
            "MEMORY": (1 / 12, 1 / 6, 1 / 3, 1.0, 100.0),
            "FIRST_UPDATE": (0.1, 0.25, 0.5, 1.0),
            "SMOOTHING": (0.1, 0.25, 0.5, 1.0),
            "DAMPING": (0.01, 0.5, 0.8, 0.95),
            "LARGEST_TREND": (0.1, 0.3, 1.0),
        },
    ),
}


def run(seed: int, *assignments: str) -> list[RoundRecord]:
    settings = load_settings(environment={}, flags={"seed": seed}, assignments=assignments)
    with tempfile.TemporaryDirectory() as folder:
        federation = Run(settings, Ledger(Path(folder)), lambda record: None)
        asyncio.run(federate(federation))
        return federation.records


def row(form: Form, seeds: int) -> list[str]:
    cells = []
    for budget_j in form.budgets_j:
        runs = [
            run(seed, *form.coding, f"energy.budget_j={budget_j}") for seed in range(1, seeds + 1)
        ]
        last = [rounds[-1] for rounds in runs]
        spent = mean(sum(record.energy_j for record in rounds) for rounds in runs)
        cells += [
            f"{mean(record.test_accuracy for record in last):.4f}",
            f"{mean(record.test_loss for record in last):.3f}",
            f"{mean(map(len, runs)):.0f}",
            f"{spent / budget_j:.1%}",
        ]
    return cells


def table(name: str, form: Form, seeds: int) -> Table:
    tight, ample = form.budgets_j
    found = Table(title=f"{name}: {tight:g} J, then {ample:g} J", box=None)
    for column in ("constant", "value", *("final", "loss", "rounds", "spent") * 2):
        found.add_column(column, justify="right", no_wrap=True)
    for constant, values in form.tried.items():
        modules = [module for module in form.modules if hasattr(module, constant)]
        chosen = getattr(modules[0], constant)
        for value in values:
            for module in modules:
                setattr(module, constant, value)
            mark = "*" if value == chosen else ""
            found.add_row(constant, f"{value:.3g}{mark}", *row(form, seeds))
        for module in modules:
            setattr(module, constant, chosen)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What the constants of a budget are worth.")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--scheme", choices=FORMS, help="one of the two only")
    options = parser.parse_args()
    # Some values make training fall apart, which the table shows.
    logging.disable(logging.WARNING)
    for name in FORMS if options.scheme is None else (options.scheme,):
        console.print(table(name, FORMS[name], options.seeds))


if __name__ == "__main__":
    main()
