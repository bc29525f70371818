"""Accuracy against epsilon: private runs on Fashion-MNIST, and FedAvg without noise.

    python benchmarks/privacy.py --data DIR [--picture FILE]
    python benchmarks/privacy.py --noise

A softmax regression (7,850 weights), training images shared out evenly, 15 rounds in one process,
delta 1e-5, a clip that adapts, the server's noise. The noise is that of a seed, so that figures can
be had again; nobody else's may be. Prints a line for each run, and a table. With --noise, prints
what a draw takes of one core, by the deviation.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from rich.table import Table
from torch import nn

import fedaq
from fedaq.privacy import noise
from fedaq.process.terminal import console
from fedaq.tasks import Normalise, Task, load_task
from fedaq.tasks.fashion_mnist import CLASSES, MEAN, STD
from fedaq_server.records.result import Result

ROUNDS, DELTA = 15, 1e-5
TRAINING = {"learning_rate": 0.1, "batch_size": 20}
# Of noise, whose figures are to be had again.
NOISE_SEED = 1
DRAWS = 4_000_000

# Accuracy by epsilon; infinite where no noise was added.
Curve = dict[float, float]


def linear_task(data: Path) -> Task:
    def model() -> nn.Module:
        return nn.Sequential(Normalise(MEAN, STD), nn.Flatten(), nn.Linear(784, CLASSES))

    return replace(load_task("fashion-mnist", data), model=model)


def run(task: Task, data: Path, clients: int, epsilon: float | None) -> Result:
    noise.entropy = np.random.default_rng(NOISE_SEED).bytes
    return fedaq.run(
        task, clients=clients, rounds=ROUNDS, data=data, progress=False, training=TRAINING,
        privacy={"epsilon": epsilon, "delta": DELTA},
        scheme="fp32" if epsilon is None else "fedaq",
    )  # fmt: skip


def curve_of(task: Task, data: Path, clients: int, epsilons: Sequence[float]) -> Curve:
    curve: Curve = {}
    for epsilon in (*epsilons, None):
        began = perf_counter()
        result = run(task, data, clients, epsilon)
        curve[float("inf") if epsilon is None else epsilon] = result.final
        told = result.record.privacy
        said = "no noise" if epsilon is None else (
            f"epsilon {told['spent']:.4g} of {epsilon:g}, noise {told['noise_multiplier']:.3g} "
            f"times a clip of {told['clip']:.3g}"
        )  # fmt: skip
        console.print(
            f"{clients} clients, {said}: {result.final:.2%}, {bits_up(result):.2f} bits up, "
            f"{perf_counter() - began:.0f} s"
        )
    return curve


def bits_up(result: Result) -> float:
    return float(result.summary["mean_uplink_bits"])


def shown(curves: dict[int, Curve]) -> Table:
    table = Table(title=f"Fashion-MNIST, {ROUNDS} rounds, delta {DELTA:g}: final accuracy")
    table.add_column("epsilon", justify="right")
    for clients in curves:
        table.add_column(f"{clients} clients", justify="right")
    for epsilon in next(iter(curves.values())):
        name = "none" if epsilon == float("inf") else f"{epsilon:g}"
        table.add_row(name, *(f"{curve[epsilon]:.2%}" for curve in curves.values()))
    return table


def draw(curves: dict[int, Curve], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", xlabel="epsilon of the run", ylabel="final accuracy")
    for number, (clients, curve) in enumerate(curves.items()):
        private = {at: value for at, value in curve.items() if at != float("inf")}
        axes.plot([*private], [*private.values()], "o-", color=f"C{number}", label=f"{clients}")
        axes.axhline(curve[float("inf")], color=f"C{number}", linestyle=":", linewidth=1)
    axes.set_xticks([*private], [f"{at:g}" for at in private])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.3)
    axes.legend(title="clients; dotted: no noise")
    figure.savefig(path)


def time_noise() -> None:
    for deviation in (4.0, 300.0, 3000.0, 1e6):
        noise.discrete_gaussian(deviation, 1)  # makes the table
        began = process_time()
        noise.discrete_gaussian(deviation, DRAWS)
        console.print(f"deviation {deviation:g}: {(process_time() - began) / DRAWS * 1e9:.0f} ns")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--epsilons", type=float, nargs="*", default=[0.5, 1, 2, 4, 8])
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.noise:
        time_noise()
    if arguments.data is None:
        return
    task = linear_task(arguments.data)
    curves = {
        clients: curve_of(task, arguments.data, clients, arguments.epsilons)
        for clients in arguments.clients
    }
    console.print(shown(curves))
    if arguments.picture:
        draw(curves, arguments.picture)


if __name__ == "__main__":
    main()
