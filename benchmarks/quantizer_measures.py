"""What is recorded of a run, and measured on it: errors, bits, and how well lengths are told."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gamma, sqrt
from pathlib import Path

import numpy as np
from quantizer_coders import (
    Coder,
    Method,
    Rounding,
    Sizes,
    block_tables,
    class_bits,
    classes,
    entropy_bits,
    nearest,
)

from fedaq.cli.inspection import read_payload
from fedaq.codec.quantizer import Floats
from fedaq_lab.local import run_local

CLIENTS = 10
EARLY = 3
# Rounds over which the updates of all clients are summed.
SUMMED_ROUNDS = 10
# Tensors whose length is predicted; shorter ones are mostly header.
LONG = 1000


# ---------------------------------------------------------------- what was recorded


@dataclass(frozen=True)
class Sample:
    """A tensor that travels, and what is known of it before.

    `earlier` is the same tensor of the same sender one round before. `energy` is what the last
    difference of the models, which both ends hold, leads one to expect of each value's size.
    """

    values: Floats
    earlier: Floats
    energy: Sizes


@dataclass(frozen=True)
class Recording:
    """A run's folder of payloads, all raw."""

    payloads: Path

    @cached_property
    def rounds(self) -> int:
        return len(list(self.payloads.glob("round-*-server.payload")))

    @property
    def measured(self) -> tuple[int, ...]:
        """An early, a middle and the last round."""
        return EARLY, self.rounds // 2, self.rounds

    @cached_property
    def clients(self) -> tuple[str, ...]:
        names = (path.stem.split("-", 2)[2] for path in self.payloads.glob("round-0001-*"))
        return tuple(sorted(set(names) - {"server"}))

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        path = self._path(1, "server")
        return tuple(t.shape for t in read_payload(path, path.read_bytes()).header.spec.tensors)

    def tensors(self, number: int, sender: str) -> list[Floats]:
        path = self._path(number, sender)
        captured = read_payload(path, path.read_bytes())
        return list(captured.header.spec.split(captured.values()))

    def difference(self, number: int) -> list[Floats]:
        """Return the model of a round less that of the round before."""
        now, before = self.tensors(number, "server"), self.tensors(number - 1, "server")
        return [a - b for a, b in zip(now, before, strict=True)]

    def samples(self, kind: str) -> list[Sample]:
        """Return one client's updates, weights or differences of the measured rounds.

        Tensors whose values are all the same are left out.
        """
        sender, lag = (self.clients[0], 0) if kind == "updates" else ("server", 1)
        found: list[Sample] = []
        for number in self.measured:
            now, before = (self._values(kind, number - k, sender) for k in (0, 1))
            energies = map(expected_energy, self.difference(number - lag), self.shapes)
            found += map(Sample, now, before, energies)
        return [s for s in found if s.values.std() > 0 and s.earlier.std() > 0]

    def all_clients(self) -> list[list[Floats]]:
        """Return the updates of all clients by measured round and tensor."""
        return [
            list(updates)
            for number in self.measured
            for updates in zip(*(self.tensors(number, c) for c in self.clients), strict=True)
            if all(x.std() > 0 for x in updates)
        ]

    def _values(self, kind: str, number: int, sender: str) -> list[Floats]:
        return self.difference(number) if kind == "differences" else self.tensors(number, sender)

    def _path(self, number: int, sender: str) -> Path:
        return self.payloads / f"round-{number:04}-{sender}.payload"


def expected_energy(difference: Floats, shape: tuple[int, ...]) -> Sizes:
    """Return the product of row and column energies of a matrix, else the values' squares."""
    squares = difference.astype(np.float64) ** 2
    if len(shape) < 2:
        return squares
    matrix = squares.reshape(shape[0], -1)
    return np.outer(matrix.mean(1), matrix.mean(0)).ravel()


def record(task: str, data: Path | None, rounds: int, folder: Path) -> None:
    run_local(
        config=None,
        out=folder,
        flags={
            "task": task, "data": data, "clients": CLIENTS, "rounds": rounds, "scheme": "fp32",
        },
        assignments=["capture=true"],
    )  # fmt: skip


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Point:
    """Bits per value and squared errors in variances; `bias` does not average out over draws."""

    setting: float
    bits: float
    error: float
    bias: float = 0.0


@dataclass(frozen=True)
class Curve:
    """What one method did with all its settings."""

    method: Method
    points: tuple[Point, ...]

    def error_at(self, rate: float) -> float | None:
        """Return the error at a rate, between the points next to it, or None beyond them."""
        rates, errors = zip(*sorted((p.bits, p.error) for p in self.points), strict=True)
        if not rates[0] <= rate <= rates[-1]:
            return None
        return float(2 ** np.interp(rate, rates, np.log2(errors)))


def measure(method: Method, tensors: Sequence[Floats]) -> Curve:
    points = (measure_setting(method.coder, setting, tensors) for setting in method.settings)
    return Curve(method, tuple(points))


def measure_setting(coder: Coder, setting: float, tensors: Sequence[Floats]) -> Point:
    """Code everything twice: what the two errors have in common is bias."""
    rng = np.random.default_rng(1)
    bits = error = bias = 0.0
    for x in tensors:
        first, second = coder(x, setting, rng), coder(x, setting, rng)
        a, b = (first.values - x).astype(float), (second.values - x).astype(float)
        variance = float(x.var())
        bits += (first.bits + second.bits) / 2
        error += float(a @ a + b @ b) / 2 / variance
        bias += float(a @ b) / variance
    count = sum(x.size for x in tensors)
    return Point(setting, bits / count, error / count, bias / count)


def measure_mean(method: Method, by_client: Sequence[Sequence[Floats]]) -> Curve:
    """Measure the error of the mean of all clients' updates, in variances of the true mean."""
    points = (mean_setting(method.coder, setting, by_client) for setting in method.settings)
    return Curve(method, tuple(points))


def mean_setting(coder: Coder, setting: float, by_client: Sequence[Sequence[Floats]]) -> Point:
    rng = np.random.default_rng(1)
    bits = error = 0.0
    for updates in by_client:
        sent = [coder(x, setting, rng) for x in updates]
        truth = np.mean(updates, axis=0, dtype=float)
        miss = np.mean([s.values for s in sent], axis=0, dtype=float) - truth
        bits += float(np.mean([s.bits for s in sent]))
        error += float(miss @ miss) / float(truth.var())
    count = sum(updates[0].size for updates in by_client)
    return Point(setting, bits / count, error / count)


def measure_sum(recording: Recording, method: Method, *, feedback: bool) -> Curve:
    """Measure the error of the sum of all mean updates, in variances of the true sum.

    With feedback a client adds to its update what rounding took from those before.
    """
    points = (
        sum_setting(recording, method.coder, setting, feedback=feedback)
        for setting in method.settings
    )
    return Curve(method, tuple(points))


def sum_setting(recording: Recording, coder: Coder, ratio: float, *, feedback: bool) -> Point:
    rng = np.random.default_rng(1)
    rounds = min(SUMMED_ROUNDS, recording.rounds)
    sizes = [x.size for x in recording.tensors(1, "server")]
    truth = [np.zeros(size) for size in sizes]
    miss = [np.zeros(size) for size in sizes]
    bits = 0.0
    for client in recording.clients:
        residuals = [np.zeros(size, np.float32) for size in sizes]
        for number in range(1, rounds + 1):
            for t, x in enumerate(recording.tensors(number, client)):
                y = x + residuals[t]
                # The coder measures its step in deviations of what it gets.
                result = coder(y, ratio * float(x.std() / y.std()), rng)
                if feedback:
                    residuals[t] = y - result.values
                truth[t] += x
                miss[t] += result.values - x
                bits += result.bits
    count = sum(sizes)
    error = sum(float(m @ m) / float(t.var()) for m, t in zip(miss, truth, strict=True))
    return Point(ratio, bits / count / rounds / len(recording.clients), error / count)


# ---------------------------------------------------------------- predicting lengths


def normal_shape(x: Floats) -> float:
    """Return the exponent of the generalised normal distribution with x's mean size."""
    wanted = float(np.abs(x).mean()) ** 2 / float(np.square(x, dtype=float).mean())
    low, high = 0.2, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        found = gamma(2 / middle) ** 2 / (gamma(1 / middle) * gamma(3 / middle))
        low, high = (middle, high) if found < wanted else (low, middle)
    return low


def draw(shape: float, count: int) -> Floats:
    """Return values with deviation 1: shape 2 is normal, 1 is Laplace."""
    rng = np.random.default_rng(1)
    sizes = rng.gamma(1 / shape, 1, count) ** (1 / shape)
    values = np.where(rng.random(count) < 0.5, -sizes, sizes)
    return (values / sqrt(gamma(3 / shape) / gamma(1 / shape))).astype(np.float32)


def length(x: Floats, step: float, rounding: Rounding) -> float:
    return entropy_bits(rounding(x / np.float32(step), np.random.default_rng(1))[0])


def predictions(sample: Sample, ratio: float, rounding: Rounding) -> dict[str, float]:
    """Return the length that each predictor expects of a tensor at a step."""
    x, before = sample.values, sample.earlier
    deviation, then = float(x.std()), float(before.std())
    step = ratio * deviation
    last = length(before, step, rounding)
    mine, old = normal_shape(x), normal_shape(before)
    fitted = length(draw(mine, x.size), ratio, rounding)
    return {
        "normal": length(draw(2.0, x.size), ratio, rounding),
        "Laplace": length(draw(1.0, x.size), ratio, rounding),
        "with mean size": fitted,
        "last round, same step": last,
        "last round, same ratio": length(before, ratio * then, rounding),
        "mean size and last": fitted * last / length(draw(old, x.size), step / then, rounding),
    }


def prediction_errors(
    samples: Sequence[Sample], ratio: float, rounding: Rounding
) -> tuple[float, dict[str, float]]:
    """Return the bits per value, and each predictor's mean error as a share of the length."""
    long = [s for s in samples if s.values.size >= LONG]
    actual = [length(s.values, ratio * float(s.values.std()), rounding) for s in long]
    rows = [predictions(s, ratio, rounding) for s in long]
    errors = {
        name: sum(abs(row[name] - true) for row, true in zip(rows, actual, strict=True))
        / sum(actual)
        for name in rows[0]
    }
    return sum(actual) / sum(s.values.size for s in long), errors


def context_bits(samples: Sequence[Sample], ratio: float) -> dict[str, float]:
    """Return bits per value of nearest rounding with tables for classes known in several ways."""
    totals = dict.fromkeys(("one table", "blocks of 64", "last difference", "own last"), 0.0)
    long = [s for s in samples if s.values.size >= LONG]
    for s in long:
        codes, _ = nearest(s.values / np.float32(ratio * s.values.std()), np.random.default_rng(1))
        totals["one table"] += entropy_bits(codes)
        totals["blocks of 64"] += block_tables(64)(codes)
        totals["last difference"] += class_bits(codes, classes(s.energy))
        totals["own last"] += class_bits(codes, classes(np.abs(s.earlier, dtype=float)))
    count = sum(s.values.size for s in long)
    return {name: bits / count for name, bits in totals.items()}
