"""Kinds of models, each trained at default settings beside fp32, or refused: `make kinds`.

Prints the table of docs/reference/models.md.
"""

import argparse
import asyncio
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from fedaq.errors import UserError
from fedaq.settings import load_settings
from fedaq.tasks.partition import WHOLE
from fedaq_client.cli.task_check import check
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run

sys.path.insert(0, str(Path(__file__).parents[1]))
from kinds.zoo import KINDS, Kind

CLIENTS = 2
# One round more or less moves the accuracy by as much as a scheme does.
LAST = 3
# Of fp32's accuracy.
LOSS = 0.02


@dataclass(frozen=True)
class Outcome:
    """What became of a kind under one scheme.

    Attributes
    ----------
    accuracy : float
        Mean of the last rounds, and over the seeds.
    values : int
        Of all that travels.
    bits : float
        Per value of a client's updates, mean of all rounds and seeds.
    """

    accuracy: float
    values: int
    bits: float


def trained(name: str, scheme: str | None) -> Outcome:
    """Train a kind in a whole federation; without a scheme, with the default one.

    Raises
    ------
    UserError
        If it is refused.
    """
    runs = [_trained(name, scheme, seed) for seed in range(1, KINDS[name].seeds + 1)]
    return Outcome(
        mean(run.accuracy for run in runs), runs[0].values, mean(run.bits for run in runs)
    )


def _trained(name: str, scheme: str | None, seed: int) -> Outcome:
    kind = KINDS[name]
    settings = load_settings(
        environment={},
        flags={"task": f"kinds.zoo:{name}", "clients": CLIENTS, "rounds": kind.rounds,
               "scheme": scheme, "seed": seed},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = Run(settings, Ledger(Path(folder)), lambda record: None)
        asyncio.run(federate(run))
        records = run.records
        assert len(records) == kind.rounds
        assert all(record.clients == CLIENTS for record in records)
        run.ledger.close()
    return Outcome(
        sum(record.test_accuracy for record in records[-LAST:]) / LAST,
        run.spec.parameters,
        sum(record.uplink_bits for record in records) / len(records),
    )


def sentence_of_check(name: str) -> str:
    """Return the one thing that check-task finds wrong; empty if nothing is."""
    settings = load_settings(environment={}, flags={"task": f"kinds.zoo:{name}"})
    checked = check(KINDS[name].task, settings, WHOLE)
    return "; ".join(f.sentence for f in checked.findings if f.kind == "wrong")


def row(name: str, kind: Kind) -> str:
    """Return the row of a kind."""
    if kind.lacks:
        return f"| {kind.says} | {', '.join(kind.lacks)} is not installed | | | |"
    try:
        plain, ours = trained(name, "fp32"), trained(name, None)
    except UserError as error:
        return f"| {kind.says} | refused: {error} | | | |"
    return (
        f"| {kind.says} | {ours.values:,} | {plain.accuracy:.3f} | {ours.accuracy:.3f} | "
        f"{ours.bits:.2f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="some of them; default: all")
    chosen = parser.parse_args().kinds or KINDS
    warnings.simplefilter("ignore")
    print("| kind | values that travel | fp32 | fedaq | bits up |\n|---|---|---|---|---|")
    for name in chosen:
        print(row(name, KINDS[name]), flush=True)


if __name__ == "__main__":
    main()
