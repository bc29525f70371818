"""What share of the values, in how many levels, masked updates are best sent with.

    python benchmarks/masked_choices.py                 # digits, three seeds
    python benchmarks/masked_choices.py --task fashion-mnist --data FOLDER --target 0.86 \\
        --rounds 20 --one-in 8 12 16 24 --steps 1 2 4

Ten clients with secure aggregation, trained to a target accuracy. Each row sends one value in so
many, in one step (in root mean squares of what is sent) throughout the run; the last has what the
optimizer chooses. Prints means over the seeds, and how far the optimizer is from the best row.
"""

import argparse
import asyncio
import logging
import tempfile
from math import ceil, inf
from pathlib import Path
from statistics import mean

from rich.table import Table

from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.schemes import masked_choice

CHOSEN = masked_choice.ONE_IN, masked_choice.STEPS, masked_choice.MOST_NOISE


def energy_to_target(options: argparse.Namespace, seed: int) -> tuple[int, float]:
    """Return the rounds and joules that a run took; infinite joules if it missed the target."""
    flags = {
        "task": options.task, "data": options.data, "seed": seed, "clients": options.clients,
        "rounds": options.rounds, "target": options.target, "privacy.secure_aggregation": True,
    }  # fmt: skip
    given = {name: value for name, value in flags.items() if value is not None}
    settings = load_settings(environment={}, flags=given)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(settings, Ledger(Path(folder)), lambda record: None)
        asyncio.run(federate(run))
        records: list[RoundRecord] = run.records
    joules = sum(record.energy_j for record in records)
    return len(records), joules if records[-1].test_accuracy >= options.target else inf


def measured(options: argparse.Namespace) -> tuple[float, float]:
    """Return the mean rounds and joules over the seeds."""
    found = [energy_to_target(options, seed) for seed in options.seeds]
    return mean(rounds for rounds, _ in found), mean(joules for _, joules in found)


def choose(one_in: tuple[int, ...], steps: tuple[float, ...], most_noise: float) -> None:
    """Leave the optimizer these."""
    masked_choice.ONE_IN, masked_choice.STEPS = one_in, steps  # type: ignore[assignment]
    masked_choice.MOST_NOISE = most_noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--one-in", type=int, nargs="+", default=[1, 2, 4, 8, 12, 16, 24])
    parser.add_argument("--steps", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    options = parser.parse_args()
    # Some choices make training fall apart, which the table shows.
    logging.disable(logging.WARNING)
    table = Table(
        title=f"{options.task}, {options.clients} clients, to {options.target:g}", box=None
    )
    for column in ("one in", "step", "levels", "rounds", "energy"):
        table.add_column(column, justify="right", no_wrap=True)
    least = inf
    for one_in in options.one_in:
        for step in options.steps:
            choose((one_in,), (step,), inf)
            rounds, joules = measured(options)
            least = min(least, joules)
            levels = 2 * ceil(masked_choice.REACH / step) + 1
            table.add_row(
                str(one_in), f"{step:g}", f"{levels}", f"{rounds:.1f}", f"{1e3 * joules:.0f} mJ"
            )
    choose(*CHOSEN)  # type: ignore[arg-type]
    rounds, joules = measured(options)
    table.add_row("optimizer", "", "", f"{rounds:.1f}", f"{1e3 * joules:.0f} mJ")
    console.print(table)
    console.print(f"the optimizer takes {joules / least - 1:+.1%} beside the best of the others")


if __name__ == "__main__":
    main()
