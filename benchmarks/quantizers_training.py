"""What an error of quantization does to training, which benchmarks/quantizers.py cannot tell.

    python benchmarks/quantizers_training.py
    python benchmarks/quantizers_training.py --task fashion-mnist --data DATA --rounds 10

Plain federated averaging in one process. Updates go up, and differences of the model go down,
with steps of a given size in deviations of the fresh update or difference, and entropy-coded.
The other direction is exact. With feedback, what rounding took from one transfer is added to the
next; a downlink always has it, since the server keeps its exact model.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from quantizer_coders import Rounding, coded, dithered, nearest, stochastic
from quantizer_measures import CLIENTS
from quantizers import table_of

from fedaq.codec.quantizer import Floats, derive_seed
from fedaq.modules.bound import Bound
from fedaq.modules.signature import spec_of
from fedaq.process.terminal import console
from fedaq.settings import PartitionSettings
from fedaq.tasks import Task, load_task
from fedaq.tasks.partition import Partition
from fedaq_client.sharing import local_data
from fedaq_client.training import Learner

SEED = 1


@dataclass(frozen=True)
class Choice:
    """How one direction is sent; None for the rounding sends it exactly."""

    rounding: Rounding | None
    ratio: float = 0.0
    feedback: bool = False

    def __str__(self) -> str:
        if self.rounding is None:
            return "exact"
        return (
            f"{self.rounding.__name__}, step {self.ratio:g}{', feedback' if self.feedback else ''}"
        )


EXACT = Choice(None)
UPLINKS = (
    *(Choice(stochastic, ratio) for ratio in (4.0, 16.0, 64.0, 256.0)),
    Choice(dithered, 16.0),
    Choice(nearest, 4.0),
    *(Choice(nearest, ratio, feedback=True) for ratio in (4.0, 16.0)),
)
DOWNLINKS = (
    Choice(stochastic, 4.0, feedback=True),
    Choice(dithered, 4.0, feedback=True),
    *(Choice(nearest, ratio, feedback=True) for ratio in (1.0, 2.0, 4.0, 8.0)),
)


class Channel:
    """One direction of one sender: sends tensors, counts bits, keeps what got lost."""

    def __init__(self, choice: Choice, parameters: int, number: int) -> None:
        self._choice = choice
        self._rng = np.random.default_rng([SEED, number])
        self._lost = np.zeros(parameters, np.float32)
        self.bits = 0.0

    def send(self, flat: Floats, parts: tuple[slice, ...]) -> Floats:
        if self._choice.rounding is None:
            return flat
        received = flat.copy()
        for part in parts:
            fresh = flat[part]
            wanted = fresh + self._lost[part] if self._choice.feedback else fresh
            if fresh.std() == 0 or wanted.std() == 0:
                continue
            # The coder measures its step in deviations of what it gets.
            ratio = self._choice.ratio * float(fresh.std() / wanted.std())
            result = coded(self._choice.rounding)(wanted, ratio, self._rng)
            received[part] = result.values
            self._lost[part] = wanted - result.values
            self.bits += result.bits
        return received


def learners_of(task: Task, data: Path | None) -> list[Learner]:
    everything = task.train_data(data)
    return [
        Learner(task, local_data(everything, Partition(i, CLIENTS), PartitionSettings(), SEED))
        for i in range(CLIENTS)
    ]


def train(
    task: Task, data: Path | None, up: Choice, down: Choice, rounds: int
) -> Iterator[tuple[float, float]]:
    """Yield the accuracy after each round, and the bits per value that were sent until then."""
    torch.manual_seed(derive_seed(SEED, "model"))
    module = task.model()
    spec = spec_of(module)
    exact = Bound(module, spec).flat
    held = exact.copy()
    test = task.test_data(data)
    learners = learners_of(task, data)
    total = sum(learner.examples for learner in learners)
    uplinks = [Channel(up, spec.parameters, number) for number in range(CLIENTS)]
    downlink = Channel(down, spec.parameters, CLIENTS)
    for number in range(1, rounds + 1):
        change = np.zeros_like(exact)
        for client, (learner, uplink) in enumerate(zip(learners, uplinks, strict=True), 1):
            np.copyto(learner.held, held)
            learner.train(task.training, SEED, f"client-{client}", number)
            share = np.float32(learner.examples / total)
            change += share * uplink.send(learner.weights, spec.slices)
        exact += change
        held += downlink.send(change, spec.slices)
        sent = downlink.bits + sum(uplink.bits for uplink in uplinks) / CLIENTS
        yield task.evaluate(module, test).accuracy, sent / spec.parameters / number


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy per round of quantized training.")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the task's data")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--direction", nargs="+", choices=("up", "down"), default=("up", "down"))
    parser.add_argument("--only", default="", metavar="TEXT", help="choices that are called so")
    options = parser.parse_args()
    task = load_task(options.task, options.data)
    shown = [n for n in (1, 2, 3, 5, 7, 10, 15, 20, 30, 40) if n <= options.rounds]
    for direction in options.direction:
        table = table_of(f"accuracy after rounds, {direction}", ("sent", "bits", *map(str, shown)))
        choices = UPLINKS if direction == "up" else DOWNLINKS
        for choice in (EXACT, *(c for c in choices if options.only in str(c))):
            ways = (choice, EXACT) if direction == "up" else (EXACT, choice)
            curve = list(train(task, options.data, *ways, options.rounds))
            accuracies = (f"{curve[n - 1][0]:.2%}" for n in shown)
            table.add_row(str(choice), f"{curve[-1][1]:.3f}", *accuracies)
        console.print(table)


if __name__ == "__main__":
    main()
