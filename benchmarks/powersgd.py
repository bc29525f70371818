"""PowerSGD (arXiv 1905.13727) in a federation: what low rank takes, and where it ends.

    python benchmarks/powersgd.py
    python benchmarks/powersgd.py --task fashion-mnist --data DATA --clients 10 --rounds 40 \\
        --target 0.86 --ranks 2 4

Plain federated averaging in one process, with the data, the seeds and the training of `fedaq run`.
Of the update of each matrix, a rank is sent: clients send ``P_i = M_i Q``, the server sends the
mean, everybody makes it orthogonal, clients send ``Q_i = M_i^T P``, the server sends the mean. All
add ``P Q^T`` to the model, and each client adds what its update had beyond that to its next one
(error feedback, algorithm 2). Q is where the next round begins (warm start). Vectors are sent as
they are. That is two exchanges a round, where a federation has one: the comparison gives them away.

Whatever is sent is coded in steps around zero, so many bits for its largest value, rounded to the
nearest, and entropy-coded with the project's own coder; what rounding takes is in the feedback.
Energy is 0.1 uJ per bit both ways, to each client of its own, as in docs/research/benchmarks.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from quantizers import table_of

from fedaq.codec import coding, payload
from fedaq.codec.given import NOTHING
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import Floats, tensor_spread
from fedaq.modules.bound import Bound
from fedaq.process.terminal import console
from fedaq.settings import PartitionSettings
from fedaq.tasks import Task, initial_model, load_task
from fedaq.tasks.partition import Partition
from fedaq_client.sharing import local_data
from fedaq_client.training import Learner

J_PER_BIT = 1e-7
CHUNK_BYTES = 1 << 20


@dataclass
class Channel:
    """What is sent by all, in both directions, and what it takes."""

    bits: int
    sent_bytes: int = 0

    def send(self, values: Floats, receivers: int = 1) -> Floats:
        """Send an array, and return what arrives of it."""
        spread = tensor_spread(values.ravel())
        if spread.is_zero:
            self.sent_bytes += receivers * payload.ZERO.header_bytes
            return np.zeros_like(values)
        spec = ModelSpec((TensorSpec("factor", (values.size,)),))
        step = max(-spread.lo, spread.hi) / (2 ** (self.bits - 1) - 1)
        header = payload.plan_payload(spec, (self.bits,), (spread,), (step,))
        keys, flat = payload.transfer_keys(spec, 0, "factor"), values.ravel()
        arrived = np.empty_like(flat)
        self.sent_bytes += receivers * header.header_bytes
        for offset, length in header.chunks(CHUNK_BYTES):
            chunk, content = coding.encode(
                header, flat.__getitem__, keys, offset, length, 1,
                squeeze=True, nearest=True, known=NOTHING,
            )  # fmt: skip
            coding.write(header, content, arrived)
            self.sent_bytes += receivers * chunk.cost_bytes
        return arrived.reshape(values.shape)


@dataclass
class LowRank:
    """The common update of one tensor; `right` is Q, None of a vector."""

    shape: tuple[int, ...]
    rank: int
    right: Floats | None = field(init=False)

    def __post_init__(self) -> None:
        rows = self.shape[0] if len(self.shape) > 1 else 1
        columns = int(np.prod(self.shape)) // rows
        # The factors of a smaller matrix would be longer than it is.
        smaller = self.rank * (rows + columns) < rows * columns
        draw = np.random.default_rng(rows + columns).standard_normal((columns, self.rank))
        self.right = draw.astype(np.float32) if rows > 1 and smaller else None

    def mean(self, updates: list[Floats], shares: list[float], channel: Channel) -> Floats:
        """Send a tensor of each client's, and return what all take for their mean."""
        if self.right is None:
            return self._exchanged(updates, shares, channel)
        matrices = [update.reshape(self.shape[0], -1) for update in updates]
        right = self.right
        lefts = [matrix @ right for matrix in matrices]
        left = np.linalg.qr(self._exchanged(lefts, shares, channel))[0].astype(np.float32)
        rights = [matrix.T @ left for matrix in matrices]
        self.right = self._exchanged(rights, shares, channel)
        return (left @ self.right.T).ravel()

    def _exchanged(self, sent: list[Floats], shares: list[float], channel: Channel) -> Floats:
        mean = sum(
            np.float32(share) * channel.send(each) for share, each in zip(shares, sent, strict=True)
        )
        return channel.send(np.asarray(mean, np.float32), receivers=len(sent))


def learners_of(task: Task, data: Path | None, clients: int, seed: int) -> list[Learner]:
    everything = task.train_data(data)
    return [
        Learner(
            task, local_data(everything, Partition(i, clients), PartitionSettings(), seed), seed
        )
        for i in range(clients)
    ]


def train(
    task: Task, options: argparse.Namespace, rank: int, bits: int
) -> Iterator[tuple[float, int]]:
    """Yield the accuracy after each round, and the bytes that were sent until then."""
    module = initial_model(task, options.seed)
    learners = learners_of(task, options.data, options.clients, options.seed)
    spec = learners[0].spec
    flat = Bound(module, spec).flat
    test = task.test_data(options.data)
    total = sum(learner.examples for learner in learners)
    shares = [learner.examples / total for learner in learners]
    left = [np.zeros_like(flat) for _ in learners]
    ranks = [LowRank(tensor.shape, rank) for tensor in spec.tensors]
    channel = Channel(bits)
    for number in range(1, options.rounds + 1):
        for client, (learner, rest) in enumerate(zip(learners, left, strict=True), 1):
            np.copyto(learner.held, flat)
            name = f"client-{client}"
            learner.train(task.training, options.seed, name, number, options.rounds)
            np.add(rest, learner.weights, out=rest)
        for low_rank, part in zip(ranks, spec.slices, strict=True):
            mean = low_rank.mean([rest[part] for rest in left], shares, channel)
            flat[part] += mean
            for rest in left:
                rest[part] -= mean
        yield task.evaluate(module, test).accuracy, channel.sent_bytes


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return a parser of what a federation in one process is asked for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the task's data")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=30)
    return parser


def main() -> None:
    parser = parser_of("PowerSGD with feedback in a federation.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", type=float, default=0.93, help="in the test's accuracy")
    parser.add_argument("--ranks", type=int, nargs="+", default=(1, 2, 4))
    parser.add_argument("--bits", type=int, nargs="+", default=(6,), help="of values of factors")
    options = parser.parse_args()
    # As in a client of `fedaq run`.
    torch.set_num_threads(1)
    task = load_task(options.task, options.data)
    names = ("rank", "bits", "rounds to the target", "energy to it", "final accuracy", "whole run")
    table = table_of(f"PowerSGD on {options.task}", names)
    for rank in options.ranks:
        for bits in options.bits:
            curve = list(train(task, options, rank, bits))
            reached = next((n for n, (got, _) in enumerate(curve) if got >= options.target), None)
            energy = "-" if reached is None else f"{8 * J_PER_BIT * curve[reached][1]:.3g} J"
            table.add_row(
                str(rank), str(bits), "-" if reached is None else str(reached + 1), energy,
                f"{curve[-1][0]:.2%}", f"{8 * J_PER_BIT * curve[-1][1]:.3g} J",
            )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
