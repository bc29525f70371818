"""Many clients that each have little: where `fedaq` without a setting ends, and fp32.

    python benchmarks/crowd.py --data DIR

A softmax regression on Fashion-MNIST (7,850 weights), its pictures shared out evenly, 15 rounds in
one process. Prints the final accuracy, and the joules with 0.1 uJ per bit.
"""

import argparse
from pathlib import Path

from quantizers import table_of

import fedaq
from fedaq.process.terminal import console
from privacy import ROUNDS, TRAINING, linear_task


def main() -> None:
    parser = argparse.ArgumentParser(description="Many clients that each have little.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=(10, 100, 500))
    options = parser.parse_args()
    task = linear_task(options.data)
    table = table_of("Fashion-MNIST by its number of clients", ("clients", "fp32", "fedaq"))
    for clients in options.clients:
        cells = []
        for scheme in ("fp32", "fedaq"):
            result = fedaq.run(
                task, clients=clients, rounds=ROUNDS, data=options.data, progress=False,
                training=TRAINING, scheme=scheme,
            )  # fmt: skip
            cells.append(f"{result.final:.2%} for {result.summary['energy_j']:.3g} J")
        table.add_row(str(clients), *cells)
    console.print(table)


if __name__ == "__main__":
    main()
