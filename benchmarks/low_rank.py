"""What goes down by low rank first: is it shorter than differences in steps alone?

    python benchmarks/low_rank.py
    python benchmarks/low_rank.py --task fashion-mnist --data DATA --clients 10 --rounds 40 \\
        --target 0.86

A federation in one process, with the data, the seeds, the training and the coder of `fedaq run`.
Updates are rounded at random in steps of `--up`; what the model gained on what clients hold goes
down in steps of `--down`, rounded to the nearest, and what that loses is in the next difference.
With low rank, the components of the gain of each matrix that are worth their bits are sent before:
one whose square exceeds so many times (`--worth`) what as many bits are worth in steps, as
`fedaq_server.schemes.step_grants` has it. Both factors are sent in steps of their own; what is left
of the gain, also what they lost by rounding, goes down in steps.

The price of a joule in all rounds is the same, so steps are. Energy is 0.1 uJ per bit both ways, to
each client of its own, as in docs/research/benchmarks.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray
from powersgd import J_PER_BIT, Channel, learners_of, parser_of
from quantizers import table_of

from fedaq.codec import coding, holding, payload
from fedaq.codec.given import Dither, Given, Past
from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats, Key
from fedaq.modules.bound import Bound
from fedaq.process.terminal import console
from fedaq.tasks import Evaluation, Task, initial_model, load_task

CHUNK_BYTES = 1 << 20
Widths = NDArray[np.float64]
# What noise a bit is worth, in squares of the step that pays for it.
WORTH = 2 * log(2) / 4


@dataclass
class Steps:
    """Arrays of all tensors, each coded in one step.

    Attributes
    ----------
    step : float
        Of tensors as wide as all are in the geometric mean, each value counted.
    exponent : float
        With which the step of a tensor grows with the root mean square of the updates.
    """

    spec: ModelSpec
    step: float
    exponent: float = 0.0

    def of_tensors(self, widths: Widths) -> Widths:
        """Return the steps, where the root mean square of each tensor is this."""
        elements, logs = np.array(self.spec.elements), np.log(np.maximum(widths, 1e-12))
        steps: Widths = self.step * np.exp(
            self.exponent * (logs - np.average(logs, weights=elements))
        )
        return steps

    def send(
        self, flat: Floats, widths: Widths, keys: tuple[Key, ...], known: Given, out: Floats,
        *, nearest: bool,
    ) -> int:  # fmt: skip
        """Add what arrives of an array to `out`; return the bytes that it took."""
        spreads = payload.tensor_spreads(self.spec, flat.__getitem__)
        low, high = (np.array([getattr(s, end) for s in spreads]) for end in ("lo", "hi"))
        steps = self.of_tensors(widths)
        bits = payload.step_bits(low, high, steps)
        if nearest:
            bits[np.maximum(-low, high) < steps / 2] = 0
        granted = tuple(np.where(bits > 0, steps, 0.0).tolist())
        header = payload.plan_payload(self.spec, tuple(bits.tolist()), spreads, granted)
        taken = header.header_bytes
        for offset, length in header.chunks(CHUNK_BYTES):
            chunk, content = coding.encode(
                header, flat.__getitem__, keys, offset, length, 1,
                squeeze=True, nearest=nearest, known=known,
            )  # fmt: skip
            if isinstance(known, Past):
                holding.add_difference(header, content, out, known)
            else:
                coding.write(header, content, out, add=True)
            taken += chunk.cost_bytes
        if isinstance(known, Past):
            known.remember_nothing(header)
        return taken


@dataclass
class Down:
    """What clients hold, and what brought them there."""

    steps: Steps
    held: Floats
    worth: float
    bits: int
    factor_bytes: int = 0
    step_bytes: int = 0
    components: int = 0
    past: Past = field(init=False)

    def __post_init__(self) -> None:
        self.past = Past.none(self.steps.spec.parameters)

    def advance(self, model: Floats, widths: Widths) -> None:
        """Send what a model gained."""
        spec = self.steps.spec
        if self.worth:
            for tensor, part in zip(spec.tensors, spec.slices, strict=True):
                if len(tensor.shape) > 1 and min(tensor.shape) > 1:
                    rows = tensor.shape[0]
                    gain = (model[part] - self.held[part]).reshape(rows, -1)
                    self.held[part] += self._low_rank(gain).ravel()
        keys = payload.transfer_keys(spec, 0)
        self.step_bytes += self.steps.send(
            model - self.held, widths, keys, self.past, self.held, nearest=True
        )

    def _low_rank(self, gain: Floats) -> Floats:
        left, values, right = np.linalg.svd(gain, full_matrices=False)
        price = self.worth * WORTH * self.steps.step**2 * self.bits * sum(gain.shape)
        rank = int(np.sum(values**2 > price))
        if not rank:
            return np.zeros_like(gain)
        root = np.sqrt(values[:rank])
        channel = Channel(self.bits)
        columns = channel.send((left[:, :rank] * root).astype(np.float32))
        rows = channel.send((right[:rank].T * root).astype(np.float32))
        self.factor_bytes += channel.sent_bytes
        self.components += rank
        return columns @ rows.T


@dataclass(frozen=True)
class Asked:
    """What is tried: steps up and down, what components are worth, and exponents of the steps."""

    up: float
    down: float
    worth: float = 0.0
    bits: int = 5
    exponents: tuple[float, float] = (0.0, 0.0)


def train(
    task: Task, options: argparse.Namespace, asked: Asked
) -> Iterator[tuple[Evaluation, float, Down]]:
    """Yield the test after each round, and the joules that were spent until then."""
    module = initial_model(task, options.seed)
    learners = learners_of(task, options.data, options.clients, options.seed)
    spec = learners[0].spec
    shown = Bound(module, spec).flat
    test = task.test_data(options.data)
    total = sum(learner.examples for learner in learners)
    model = shown.copy()
    above, under = (
        Steps(spec, step, exponent)
        for step, exponent in zip((asked.up, asked.down), asked.exponents, strict=True)
    )
    below = Down(under, model.copy(), asked.worth, asked.bits)
    up_bytes, widths = 0, np.ones(len(spec.tensors))
    for number in range(1, options.rounds + 1):
        change, squares = np.zeros_like(model), np.zeros(len(spec.tensors))
        for client, learner in enumerate(learners, 1):
            np.copyto(learner.held, below.held)
            name = f"client-{client}"
            learner.train(task.training, options.seed, name, number, options.rounds)
            keys = payload.transfer_keys(spec, options.seed, "uplink", name, number)
            arrived = np.zeros_like(model)
            up_bytes += above.send(
                learner.weights, widths, keys, Dither(keys.__getitem__), arrived, nearest=False
            )
            squares += [np.mean(np.square(learner.weights[part])) for part in spec.slices]
            change += np.float32(learner.examples / total) * arrived
        model += change
        widths = np.sqrt(squares / len(learners))
        np.copyto(shown, model)
        down_bytes = len(learners) * (below.factor_bytes + below.step_bytes)
        tested = task.evaluate(module, test)
        yield tested, 8 * J_PER_BIT * (up_bytes + down_bytes), below
        if number < options.rounds:
            below.advance(model, widths)


def main() -> None:
    parser = parser_of("Low rank for what goes down.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", type=float, default=0.93, help="in the test's accuracy")
    parser.add_argument("--up", type=float, nargs="+", default=(0.1,))
    parser.add_argument("--down", type=float, nargs="+", default=(0.03,))
    parser.add_argument("--worth", type=float, nargs="+", default=(0, 4, 2, 1), help="0: no rank")
    parser.add_argument("--bits", type=int, default=5, help="of values of factors")
    options = parser.parse_args()
    # As in a client of `fedaq run`.
    torch.set_num_threads(1)
    task = load_task(options.task, options.data)
    names = (
        "up", "down", "worth", "components a round", "of them, share of what goes down",
        "energy to the target", "accuracy of the last five", "whole run",
    )  # fmt: skip
    table = table_of(f"low rank on {options.task}", names)
    for up in options.up:
        for down in options.down:
            for worth in options.worth:
                asked = Asked(up, down, worth, options.bits)
                curve = list(train(task, options, asked))
                below = curve[-1][2]
                spent = next((j for got, j, _ in curve if got.accuracy >= options.target), None)
                factors = below.factor_bytes / (below.factor_bytes + below.step_bytes)
                table.add_row(
                    f"{up:g}", f"{down:g}", f"{worth:g}",
                    f"{below.components / options.rounds:.1f}", f"{factors:.0%}",
                    "-" if spent is None else f"{spent:.3g} J",
                    f"{mean(tested.accuracy for tested, _, _ in curve[-5:]):.2%}",
                    f"{curve[-1][1]:.3g} J",
                )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
