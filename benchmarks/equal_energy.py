"""Accuracy at equal energy: what every line of a comparison has reached when the joules are gone.

Reads the ``compare.json`` of one or more folders that `fedaq compare` wrote.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from fedaq.process.terminal import console


def accuracy_at(curve: Sequence[Sequence[float]], energy_j: float) -> float | None:
    """Return the accuracy of the last round that the energy pays for."""
    paid = [accuracy for spent, accuracy, *_ in curve if spent <= energy_j]
    return paid[-1] if paid else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--energy-j", nargs="+", type=float, required=True)
    options = parser.parse_args()
    lines: list[dict[str, Any]] = [
        line
        for folder in options.folders
        for line in json.loads((folder / "compare.json").read_text())["lines"]
    ]
    for energy_j in options.energy_j:
        rows = []
        for line in lines:
            reached = [accuracy_at(seed["curve"], energy_j) for seed in line["seeds"]]
            if None not in reached:
                rows.append((mean(a for a in reached if a is not None), line["name"]))
        table = Table("scheme", "accuracy", title=f"{energy_j:g} J")
        for accuracy, name in sorted(rows, reverse=True):
            table.add_row(name, f"{accuracy:.2%}")
        console.print(table)


if __name__ == "__main__":
    main()
