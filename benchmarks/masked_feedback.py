"""What becomes of values that masked updates leave out: nothing, feedback, or a rotation before.

    python benchmarks/masked_feedback.py               # digits, ten clients, two seeds

A simulation of rounds without a network, of the same learners: one value in N is sent, the same of
all clients, in codes of a common step. Joules are those of codes, keys and shares; what goes down,
the same for all ways but for chance, is sent exactly and not counted. Prints rounds and joules to
the target, means over the seeds.

unbiased    what is sent is N times as large
unscaled    it is not
kept        what was not sent is kept and added to the next update (error feedback)
all kept    and so is what rounding to the nearest code lost
rotated     unbiased, of a randomly rotated update (Hadamard, blocks of 256), with a shorter reach
"""

import argparse
from dataclasses import dataclass
from math import ceil, inf
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from fedaq.codec.common_grid import sum_bits
from fedaq.codec.quantizer import Floats
from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq.tasks import Task, evaluated
from fedaq.tasks.loading import load_task
from fedaq_client.sharing import shares_of
from fedaq_client.training import Learner, Own

BLOCK = 256
# Of the usual radio, and of keys and shares each way (benchmarks/masks.py).
J_PER_BYTE, KEY_BYTES = 8e-7, 2300
ROUNDS = 45


@dataclass(frozen=True)
class Way:
    """How values are left out.

    Attributes
    ----------
    scale : bool
        Whether what is sent is as many times as large.
    keep : bool
        Whether what is not sent is kept.
    keep_rounding : bool
    reach : float
        Of codes, in root mean squares.
    rotate : bool
    """

    scale: bool = False
    keep: bool = False
    keep_rounding: bool = False
    reach: float = 6.0
    rotate: bool = False


WAYS = {
    "unbiased": Way(scale=True),
    "unscaled": Way(),
    "kept": Way(keep=True),
    "all kept": Way(keep=True, keep_rounding=True),
    "rotated": Way(scale=True, reach=4.0, rotate=True),
}


def hadamard() -> Floats:
    """Return an orthogonal matrix of `BLOCK` rows."""
    matrix: NDArray[np.float64] = np.ones((1, 1))
    while len(matrix) < BLOCK:
        matrix = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), matrix)
    found: Floats = (matrix / BLOCK**0.5).astype(np.float32)
    return found


ROTATION = hadamard()


def rotated(values: Floats, signs: Floats) -> Floats:
    """Return values times signs, rotated block by block."""
    padded = np.zeros(len(signs), np.float32)
    padded[: len(values)] = values
    return np.asarray(((padded * signs).reshape(-1, BLOCK) @ ROTATION).ravel(), np.float32)


def rotated_back(values: Floats, signs: Floats, count: int) -> Floats:
    """Undo it."""
    out: Floats = ((values.reshape(-1, BLOCK) @ ROTATION.T).ravel() * signs)[:count]
    return out


def coded(
    values: Floats, sent: NDArray[np.bool_], step: float, way: Way, levels: int, drawn: Floats
) -> Floats:
    """Return what arrives of an update."""
    scaled = values / np.float32(step)
    codes = np.rint(scaled) if way.keep_rounding else np.floor(scaled + drawn)
    out: Floats = np.where(sent, np.clip(codes, -levels, levels) * step, 0).astype(np.float32)
    return out


def to_target(
    task: Task, seed: int, way: Way, one_in: int, step: float, clients: int, target: float
) -> tuple[int, float]:
    """Return the rounds and joules that training takes; infinite joules if it does not get there.

    `step` is in root mean squares of the last round's updates.
    """
    settings = load_settings(environment={}, flags={"clients": clients, "seed": seed})
    every = task.train_data(None)
    learner, shares = Learner(task, every, seed), shares_of(task, every, settings)
    rng, size = np.random.default_rng(seed), learner.spec.parameters
    width, model = float(np.sqrt(np.mean(learner.held**2))), learner.held.copy()
    padded = -(-size // BLOCK) * BLOCK if way.rotate else size
    unsent = np.zeros((clients, size), np.float32)
    levels, joules = ceil(way.reach / step), 0.0
    for number in range(1, ROUNDS + 1):
        sent, wide = rng.random(padded) < 1 / one_in, []
        signs = rng.choice(np.array([-1, 1], np.float32), padded)
        total = np.zeros(padded)
        for client in range(clients):
            learner.lend(shares[client], Own())
            learner.held[:] = model
            learner.train(task.training, seed, f"client-{client + 1}", number, ROUNDS)
            update = learner.weights + unsent[client]
            wide.append(float(np.sqrt(np.mean(update**2))))
            values = rotated(update, signs) if way.rotate else update
            drawn = rng.random(padded, np.float32)
            arrives = coded(values, sent, step * width, way, levels, drawn)
            if way.keep:
                unsent[client] = update - arrives if way.keep_rounding else update * ~sent
            total += arrives
        average = (total / clients).astype(np.float32)
        if way.rotate:
            average = rotated_back(average, signs, size)
        model += average * (one_in if way.scale else 1)
        width = mean(wide)
        codes = int(sent.sum()) * sum_bits(2 * levels, clients) / 8
        joules += J_PER_BYTE * clients * (codes + KEY_BYTES)
        learner.held[:] = model
        learner.receive()
        if evaluated(task, learner.model, task.test_data(None)).metrics["accuracy"] >= target:
            return number, joules
    return ROUNDS, inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--one-in", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--step", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task("digits", None)
    table = Table(title=f"digits, {options.clients} clients, to {options.target:g}", box=None)
    for column in ("way", "one in", "rounds", "energy"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, way in WAYS.items():
        for one_in in options.one_in:
            found = [
                to_target(task, seed, way, one_in, options.step, options.clients, options.target)
                for seed in options.seeds
            ]
            rounds, joules = (mean(column) for column in zip(*found, strict=True))
            table.add_row(name, str(one_in), f"{rounds:.1f}", f"{1e3 * joules:.0f} mJ")
    console.print(table)


if __name__ == "__main__":
    main()
