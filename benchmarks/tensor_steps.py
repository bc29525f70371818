"""Steps of each tensor's own: do they train better for the same joules?

    python benchmarks/tensor_steps.py
    python benchmarks/tensor_steps.py --task budgets:recurrent --clients 4 --rounds 12 --times 1 2 4
    python benchmarks/tensor_steps.py --task budgets:group --clients 3 --rounds 12 --times 1 2 4

As `low_rank.py`, with no low rank. The step of each tensor is the common one, times a power of how
wide its updates are beside all: with an exponent of 0 all have the same step, as one price makes
it; with 0.5 a tensor whose updates are wide bears more noise, with -0.5 less. The common steps are
so many `--times` 0.1 up and 0.03 down; the test's loss is the mean of the last three rounds and of
three seeds.
"""

import argparse
from statistics import mean

import torch
from low_rank import Asked, train
from powersgd import parser_of
from quantizers import table_of

from fedaq.process.terminal import console
from fedaq.tasks import load_task

UP, DOWN = 0.1, 0.03
EXPONENTS = ((0.0, 0.0), (0.5, 0.5), (-0.5, -0.5), (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))
SEEDS = (1, 2, 3)


def main() -> None:
    parser = parser_of("Steps of each tensor's own.")
    parser.add_argument("--times", type=float, nargs="+", default=(0.7, 1, 2, 4))
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(options.task, options.data)
    names = ("exponent up", "exponent down", *(f"{times:g} times" for times in options.times))
    table = table_of(f"loss and joules on {options.task}", names)
    for up, down in EXPONENTS:
        cells = []
        for times in options.times:
            losses, joules = [], []
            for seed in SEEDS:
                asked = Asked(times * UP, times * DOWN, exponents=(up, down))
                each = argparse.Namespace(**vars(options) | {"seed": seed})
                curve = list(train(task, each, asked))
                losses.append(mean(tested.loss for tested, _, _ in curve[-3:]))
                joules.append(curve[-1][1])
            cells.append(f"{mean(losses):.4f} for {1000 * mean(joules):.1f} mJ")
        table.add_row(f"{up:g}", f"{down:g}", *cells)
    console.print(table)


if __name__ == "__main__":
    main()
