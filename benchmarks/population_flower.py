"""The same ten thousand clients as `population.py`, in Flower's simulation on Ray.

    python benchmarks/population_flower.py
    python benchmarks/population_flower.py --sampled 25 50 100 200

Needs an environment with `fedaq[client,server,flower]` and `flwr[simulation]` (`make test-flower`
makes one). The same model, examples, training and number of sampled clients; Flower's FedAvg sends
float32 values, both ways. A row is as in `population.py`, but for the hash: another draw of clients
and other arithmetic make another model, so the test's accuracy stands in its place.
"""

import argparse
import logging
import os
import subprocess
import sys
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from population import CPUS, EXAMPLES_EACH, MB, STORE_BYTES, cpu_s, population_task, pss_mb

from fedaq.tasks import Examples

NAME = Path(__file__).stem


@cache
def examples_of(clients: int) -> Examples:
    """Return all examples, once in each process."""
    torch.set_num_threads(1)
    found = population_task(clients).train_data(None)
    assert isinstance(found, Examples)
    return found


def client_app(clients: int) -> Any:
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app, task = ClientApp(), population_task(clients)

    @app.train()  # type: ignore[untyped-decorator]
    def train(message: Message, context: Context) -> Message:
        everything, number = examples_of(clients), int(context.node_config["partition-id"])
        mine = slice(EXAMPLES_EACH * number, EXAMPLES_EACH * (number + 1))
        inputs, labels = everything.inputs[mine], everything.targets[mine]
        model, training = task.model(), task.training
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(model.parameters(), training.learning_rate, training.momentum)
        for _ in range(training.local_epochs):
            for batch in torch.randperm(len(labels)).split(training.batch_size):
                loss = torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        figures = MetricRecord({"num-examples": len(labels), "train_loss": float(loss.detach())})
        arrays = ArrayRecord(model.state_dict())
        return Message(RecordDict({"arrays": arrays, "metrics": figures}), reply_to=message)

    return app


def measure(clients: int, sampled: int, rounds: int) -> None:
    """Carry out one run in this process and print its row."""
    from flwr.app import ArrayRecord, MetricRecord
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    began_s, own, task = time.monotonic(), psutil.Process(), population_task(clients)
    ends: list[float] = []
    cpus: list[float] = []
    alone: list[float] = []
    together: list[float] = []
    accuracies: list[float] = []
    test = task.test_data(None)

    def tested(number: int, arrays: Any) -> Any:
        model = task.model()
        model.load_state_dict(arrays.to_torch_state_dict())
        accuracies.append(task.evaluate(model, test).accuracy)
        ends.append(time.monotonic() - began_s)
        if number in (2, rounds):
            cpus.append(cpu_s())
            alone.append(own.memory_info().rss / MB)
            together.append(pss_mb())
        print(f"flower round {number}: {ends[-1]:.2f} s", file=sys.stderr)
        return MetricRecord({"accuracy": accuracies[-1]})

    app = ServerApp()

    @app.main()  # type: ignore[untyped-decorator]
    def main(grid: Any, context: Any) -> None:
        strategy = FedAvg(
            fraction_train=sampled / clients, fraction_evaluate=0.0, min_train_nodes=sampled,
            min_available_nodes=clients,
        )  # fmt: skip
        first = ArrayRecord(task.model().state_dict())
        strategy.start(grid, first, num_rounds=rounds, evaluate_fn=tested)

    run_simulation(
        app, client_app(clients), clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0},
            "init_args": {
                "num_cpus": CPUS, "include_dashboard": False, "object_store_memory": STORE_BYTES,
                "log_to_driver": False,
            },
        },
    )  # fmt: skip
    # The first is the test of the model that the run begins with.
    seconds = [end - before for before, end in pairwise(ends[1:])]
    print(
        f"| flower | {sampled} | {ends[1] - median(seconds):.1f} | {median(seconds):.2f} | "
        f"{(cpus[1] - cpus[0]) / (rounds - 2):.2f} | {alone[0]:.0f}, {alone[1]:.0f} | "
        f"{together[0]:.0f}, {together[1]:.0f} | {accuracies[-1]:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--sampled", type=int, nargs="+", default=[100])
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    # Ray's workers find the app in a module by its name.
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    print("| engine | sampled | start s | s/round | CPU s/round | MB, round 2 and last | "
          "MB of all processes | accuracy |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for sampled in asked.sampled:
        program = f"import {NAME}; {NAME}.measure({asked.clients}, {sampled}, {asked.rounds})"
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
