"""What the rules against hostile clients cost and do, on digits and on made-up updates.

python benchmarks/hostile.py norms       # how far honest updates lie from the median
python benchmarks/hostile.py attacks     # accuracy with clients that turn their updates
python benchmarks/hostile.py costs       # time and memory of an aggregation
"""

import asyncio
import logging
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fedaq.codec import coding, kernels, payload
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import value_range
from fedaq.settings import Settings, load_settings
from fedaq_client.session import Session
from fedaq_client.training import Learner
from fedaq_lab import local
from fedaq_server.records.ledger import Ledger
from fedaq_server.rounds.aggregation import Aggregate, Contribution
from fedaq_server.rounds.gathered import Gathered
from fedaq_server.rounds.rules import Rule, median, trimmed_mean
from fedaq_server.run import Run

SEEDS = (1, 2)
ROUNDS = 20
logging.disable(logging.WARNING)  # every refusal is one
SCHEMES: dict[str, list[str]] = {
    "fedaq": ["scheme=fedaq"],
    "fedaq, 0.2 J": ["scheme=fedaq", "energy.budget_j=0.2"],
    "fedaq, steps of 0.01": ["scheme=fedaq", "fedaq.uplink_resolution=0.01"],
    "fixed, 8 bits": ["scheme=fixed"],
    "fixed, 1 bit": ["scheme=fixed", "fixed.uplink_bits=1"],
    "feddq": ["scheme=feddq"],
    "dadaquant": ["scheme=dadaquant"],
    "fp32": ["scheme=fp32"],
}


def settings_of(seed: int, *assignments: str) -> Settings:
    common = [f"seed={seed}", "clients=10", f"rounds={ROUNDS}"]
    return load_settings(environment={}, assignments=[*common, *assignments])


def federate(settings: Settings) -> Run:
    with TemporaryDirectory() as folder:
        run = Run(settings, Ledger(Path(folder)), lambda record: None)
        asyncio.run(local.federate(run))
        return run


# ---- Norms of honest updates ------------------------------------------------


def greatest_ratio(settings: Settings) -> tuple[float, float]:
    """Return the greatest norm and number of examples of a run, each as a multiple of the rule's.

    The rule itself is off, so that every norm is seen.
    """
    ratios = [0.0]
    with TemporaryDirectory() as folder:
        run = Run(settings, Ledger(Path(folder)), lambda record: None)
        conduct, examples = run.conduct, list[int]()
        learn, admit = conduct.learn_norms, run.roster.add

        def learn_and_compare(norms: Collection[float]) -> None:
            reference = max(conduct.medians, default=0.0)
            if reference:
                ratios.append(max(norms) / reference)
            learn(norms)

        def add_and_count(client: Any) -> None:
            examples.append(client.examples)
            admit(client)

        conduct.learn_norms = learn_and_compare  # type: ignore[method-assign]
        run.roster.add = add_and_count  # type: ignore[method-assign]
        asyncio.run(local.federate(run))
    return max(ratios), max(examples) / median_low(examples)


def show_norms() -> None:
    print(f"honest clients, digits, Dirichlet 0.1, 10 clients, {ROUNDS} rounds, seeds {SEEDS}:")
    print("| scheme | norm, in medians of before | examples, in medians |\n|---|---|---|")
    for name, assignments in SCHEMES.items():
        found = [
            greatest_ratio(
                settings_of(
                    seed,
                    *assignments,
                    "partition.kind=dirichlet",
                    "partition.alpha=0.1",
                    "limits.norm_factor=0",
                )
            )
            for seed in SEEDS
        ]
        norm, examples = (max(column) for column in zip(*found, strict=True))
        print(f"| {name} | {norm:.2f} | {examples:.1f} |", flush=True)


# ---- Attacks ----------------------------------------------------------------

HOSTILE = 2


class Turned(Learner):
    """Sends the opposite of what it learned, eight times."""

    def train(self, *arguments: Any, **options: Any) -> float:
        loss = super().train(*arguments, **options)
        np.multiply(self.weights, -8, self.weights)
        return loss


def accuracy(settings: Settings, hostile: int) -> float:
    members = local._members

    @contextmanager
    def some_turned(*arguments: Any) -> Iterator[list[local.Member]]:
        with members(*arguments) as found:
            turned = [replace(each, turn=partial(as_turned, each)) for each in found[:hostile]]
            yield [*turned, *found[hostile:]]

    vars(local)["_members"] = some_turned
    try:
        return federate(settings).records[-1].test_accuracy
    finally:
        vars(local)["_members"] = members


@asynccontextmanager
async def as_turned(member: local.Member, session: Session) -> AsyncIterator[None]:
    async with member.turn(session):
        session.learner.__class__ = Turned
        try:
            yield
        finally:
            session.learner.__class__ = Learner


def show_attacks() -> None:
    print(
        f"digits, 10 clients, {ROUNDS} rounds, seed 1, norm rule off, "
        f"{HOSTILE} turn their updates (times -8):"
    )
    print("| scheme | aggregation | all honest | 2 hostile |\n|---|---|---|---|")
    for name in ("fixed, 8 bits", "fedaq, steps of 0.01", "fedaq", "fedaq, 0.2 J"):
        for aggregation in ("mean", "median", "trimmed_mean"):
            settings = settings_of(
                1, *SCHEMES[name], f"aggregation={aggregation}", "limits.norm_factor=0"
            )
            honest, attacked = (accuracy(settings, hostile) for hostile in (0, HOSTILE))
            print(f"| {name} | {aggregation} | {honest:.4f} | {attacked:.4f} |", flush=True)


# ---- Costs ------------------------------------------------------------------

VALUES, BITS = 4_000_000, 4


def resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show_costs() -> None:
    print(f"{VALUES} values, {BITS} bits a value, greatest resident memory grows down the rows:")
    print("| aggregation | clients | fold and commit, s | apply, s | more memory, MiB |")
    print("|---|---|---|---|---|")
    spec = ModelSpec((TensorSpec("t", (VALUES,)),))
    flat = np.random.default_rng(1).standard_normal(VALUES, np.float32)
    header = payload.plan_payload(spec, (BITS,), [value_range(flat)])
    keys = payload.transfer_keys(spec, 1, "bench")
    chunks = [
        coding.encode(header, flat.__getitem__, keys, *span, 1, squeeze=False)[0]
        for span in header.chunks(256 * 1024)
    ]
    total, out = np.ones(VALUES, np.int64), np.ones(VALUES, np.float32)
    names: list[str] = ["mean", "median", "trimmed_mean"]
    for name in names:
        for clients in (10, 50):
            with TemporaryDirectory() as folder:
                before = resident_mib()
                aggregate: Aggregate | Gathered
                if name == "mean":
                    aggregate = Aggregate(spec, clients, Path(folder), total)
                else:
                    rule: Rule = median if name == "median" else partial(trimmed_mean, trim=0.2)
                    aggregate = Gathered(spec, Path(folder), rule)
                started = time.perf_counter()
                for _ in range(clients):
                    contribution = Contribution(aggregate, header, 1)
                    for chunk in chunks:
                        contribution.add(chunk)
                    contribution.commit()
                folded = time.perf_counter()
                aggregate.apply(flat, out)
                applied = time.perf_counter()
                aggregate.close()
            print(
                f"| {name} | {clients} | {folded - started:.2f} | {applied - folded:.2f} "
                f"| {resident_mib() - before:.0f} |",
                flush=True,
            )
    show_norm_cost()


def show_norm_cost() -> None:
    print("| bits | sum of a chunk's codes and squares, ns a value | adding them, ns a value |")
    print("|---|---|---|")
    rng = np.random.default_rng(1)
    for bits in (1, 4, 8, 16):
        values = 2**18 * 8 // bits
        data = rng.integers(0, 256, values * bits // 8, np.uint8)
        total = np.zeros(values, np.int64)
        sums = least_s(partial(kernels.code_sums, data, bits, values))
        adds = least_s(partial(kernels.unpack_accumulate, data, bits, 1, 3, 2, 1, total))
        print(f"| {bits} | {1e9 * sums / values:.2f} | {1e9 * adds / values:.2f} |")


def least_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    {"norms": show_norms, "attacks": show_attacks, "costs": show_costs}[sys.argv[1]]()
