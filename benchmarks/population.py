"""Ten thousand simulated clients, of whom few are drawn: seconds and memory of every round.

    python population.py                    # the local engine and Ray, one after the other
    python population.py --sampled 25 50 100 200
    python population.py --alternate          # a round of the one, a round of the other

The task is made up: 20 examples for each client, a net of 9,610 parameters. For each number of
sampled clients and each engine it prints the seconds until the first round begins, those of a round
(median of all but the first), processor seconds of a round, of all processes, the memory of this
process and of all of them (Pss: what is shared counts once) after a fifth of the rounds and after
the last, and a hash of the model. With 2 CPUs, whatever the machine has.
With `--alternate` both engines carry out their rounds in turn, so that whatever else the machine
does falls on both; it prints the medians of both, and of the ratio within each pair of rounds.
"""

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from torch import nn

import fedaq
from fedaq.tasks import Evaluation, Examples, Task, Training
from fedaq_lab.running import Engine
from fedaq_server.records.record import RoundRecord

EXAMPLES_EACH, FEATURES, CLASSES, TESTED = 20, 64, 10, 2000
CPUS, STORE_BYTES = 2, 400 * 1024 * 1024
MB = 1e6
# Memory is looked at after this part of the rounds, and after all of them.
EARLY = 5


def population_task(clients: int) -> Task:
    """Return a classifier of noisy points around ten centres."""

    def examples(count: int, seed: int) -> Examples:
        centres = np.random.default_rng(7).standard_normal((CLASSES, FEATURES), np.float32)
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, CLASSES, count)
        inputs = centres[labels] + 1.5 * rng.standard_normal((count, FEATURES), np.float32)
        return Examples(torch.from_numpy(inputs), torch.from_numpy(labels))

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, CLASSES))

    training = Training(local_epochs=2, batch_size=10, learning_rate=0.05)
    return Task(
        "population", model, lambda _: examples(EXAMPLES_EACH * clients, 1),
        lambda _: examples(TESTED, 2), training,
    )  # fmt: skip


def processes() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def pss_mb() -> float:
    """Return the memory of this process and all that it started."""
    total = 0
    for each in processes():
        with suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total / MB


def cpu_s() -> float:
    total = 0.0
    for each in processes():
        with suppress(psutil.Error):
            times = each.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def small_cluster(engine: str) -> Iterator[None]:
    if engine != "ray":
        yield
        return
    import ray

    ray.init(
        num_cpus=CPUS, include_dashboard=False, object_store_memory=STORE_BYTES,
        configure_logging=False, log_to_driver=False,
    )  # fmt: skip
    yield
    ray.shutdown()


def in_turn(task: Task) -> Task:
    """Return a task whose rounds wait, each after its test, until they are told to go on."""
    at: list[tuple[float, float]] = []

    def evaluate(model: nn.Module, data: Examples) -> Evaluation:
        found = task.evaluate(model, data)
        if at:
            began_s, began_cpu_s = at[-1]
            print(json.dumps([time.monotonic() - began_s, cpu_s() - began_cpu_s]), flush=True)
        else:
            print("[0, 0]", flush=True)
        sys.stdin.readline()
        at.append((time.monotonic(), cpu_s()))
        return found

    return replace(task, evaluate=evaluate)


def alternate(clients: int, sampled: int, rounds: int) -> None:
    """Carry out a round of the local engine and one on Ray in turn, and compare them."""
    engines = ("local", "ray")
    command = [
        sys.executable, __file__, "--alone", "--in-turn", "--clients", str(clients),
        "--sampled", str(sampled), "--rounds", str(rounds), "--engines",
    ]  # fmt: skip
    runs = [
        subprocess.Popen([*command, each], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in engines
    ]
    took: list[list[list[float]]] = [[], []]
    for number in range(rounds):
        for run, of_run in zip(runs, took, strict=True):
            assert run.stdin is not None
            assert run.stdout is not None
            if number:
                run.stdin.write("go\n")
                run.stdin.flush()
            of_run.append(json.loads(run.stdout.readline()))
    for run in runs:
        run.communicate("go\n")
    for engine, of_run in zip(engines, took, strict=True):
        seconds, cpu = zip(*of_run[1:], strict=True)
        print(f"{engine}: {median(seconds):.2f} s and {median(cpu):.2f} s of processors a round")
    pairs = list(zip(*took, strict=True))[1:]
    for what, place in (("seconds", 0), ("processors' seconds", 1)):
        ratios = [ray[place] / local[place] for local, ray in pairs]
        print(f"Ray takes {median(ratios):.2f} times the {what}")


def measure(
    engine: Engine, clients: int, sampled: int, rounds: int, *, waits: bool = False
) -> None:
    """Carry out one run in this process and print what it took, as JSON."""
    logging.disable(logging.WARNING)
    early = max(1, rounds // EARLY)
    began_s, own = time.monotonic(), psutil.Process()
    seconds: list[float] = []
    cpus: list[float] = []
    alone: list[float] = []
    together: list[float] = []

    def on_round(record: RoundRecord) -> None:
        seconds.append(record.seconds)
        if len(seconds) == 1:
            begun.append(time.monotonic() - began_s - record.seconds)
        # To look takes a part of a second, so not at every round.
        if len(seconds) in (early, rounds):
            cpus.append(cpu_s())
            alone.append(own.memory_info().rss / MB)
            together.append(pss_mb())
        print(f"{engine} round {record.round}: {record.seconds:.2f} s", file=sys.stderr)

    begun: list[float] = []
    with TemporaryDirectory() as folder, small_cluster(engine):
        task = population_task(clients)
        fedaq.run(
            in_turn(task) if waits else task, engine=engine, clients=clients, rounds=rounds,
            clients_per_round=sampled, out=Path(folder) / "run", progress=False, on_round=on_round,
        )  # fmt: skip
        model = (Path(folder) / "run" / "model.safetensors").read_bytes()
    found = {
        "start_s": begun[0],
        "round_s": median(seconds[1:]),
        "cpu_s": (cpus[1] - cpus[0]) / (rounds - early),
        "mb": alone,
        "all_mb": together,
        "model": hashlib.sha256(model).hexdigest()[:12],
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--sampled", type=int, nargs="+", default=[100])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--alone", action="store_true", help="one run, in this process")
    parser.add_argument("--alternate", action="store_true")
    parser.add_argument("--in-turn", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        measure(
            asked.engines[0], asked.clients, asked.sampled[0], asked.rounds, waits=asked.in_turn
        )
        return
    if asked.alternate:
        for sampled in asked.sampled:
            alternate(asked.clients, sampled, asked.rounds)
        return
    print(f"{asked.clients} clients, {asked.rounds} rounds, {CPUS} CPUs")
    print("| engine | sampled | start s | s/round | CPU s/round | MB, early and last | "
          "MB of all processes | model |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for sampled in asked.sampled:
        for engine in asked.engines:
            done = subprocess.run(
                [sys.executable, __file__, "--alone", "--engines", engine, "--clients",
                 str(asked.clients), "--sampled", str(sampled), "--rounds", str(asked.rounds)],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {engine} | {sampled} | {found['start_s']:.1f} | {found['round_s']:.2f} | "
                f"{found['cpu_s']:.2f} | {found['mb'][0]:.0f}, {found['mb'][1]:.0f} | "
                f"{found['all_mb'][0]:.0f}, {found['all_mb'][1]:.0f} | {found['model']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
