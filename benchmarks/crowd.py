"""Many clients that each have little: where `fedaq` ends, with budgets and without, and fp32.

    python benchmarks/crowd.py --data DIR [--drawn N] [--budgets] [--seeds 1]

A softmax regression on Fashion-MNIST (7,850 weights), its pictures shared out evenly, 15 rounds in
one process. Prints the final accuracy, and the joules with 0.1 uJ per bit. With --drawn, each round
draws so many of the clients. With --budgets, also half, once and twice the joules that `fedaq`
takes without a budget. Figures are means over the seeds.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from quantizers import table_of

import fedaq
from fedaq.process.terminal import console
from privacy import ROUNDS, TRAINING, linear_task

# Of what a run without a budget takes.
BUDGETS = (0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Many clients that each have little.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=(10, 100, 500))
    parser.add_argument("--drawn", type=int, help="clients of a round; all, if it is not given")
    parser.add_argument("--budgets", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    task = linear_task(options.data)

    def runs_of(clients: int, **settings: Any) -> tuple[float, float]:
        """Return the mean of the final accuracy, and of the joules."""
        results = [
            fedaq.run(
                task, clients=clients, rounds=ROUNDS, data=options.data, progress=False,
                training=TRAINING, seed=seed, clients_per_round=options.drawn, **settings,
            )
            for seed in range(1, options.seeds + 1)
        ]  # fmt: skip
        return mean(each.final for each in results), mean(
            each.summary["energy_j"] for each in results
        )

    shares = BUDGETS if options.budgets else ()
    columns = ("clients", "fp32", "fedaq", *(f"{share:g} of its joules" for share in shares))
    table = table_of("Fashion-MNIST by its number of clients", columns)
    for clients in options.clients:
        runs = [runs_of(clients, scheme=scheme) for scheme in ("fp32", "fedaq")]
        usual_j = runs[-1][1]
        runs += [runs_of(clients, scheme="fedaq", budget=f"{s * usual_j:.3g}J") for s in shares]
        table.add_row(str(clients), *(f"{final:.2%} for {joules:.3g} J" for final, joules in runs))
    console.print(table)


if __name__ == "__main__":
    main()
