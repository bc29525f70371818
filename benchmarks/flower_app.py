"""Flower's PyTorch quickstart with and without the two lines: bytes, accuracy, seconds.

    python benchmarks/flower_app.py --fashion-mnist FOLDER --out flower.json

Runs examples/flower, before and after, in Flower's simulation: ten nodes, FedAvg, half of the nodes
evaluate, one epoch a round. Needs an environment with `fedaq[client,server,flower]` and
`flwr[simulation]` (`make test-flower` makes one). Bytes are those of the messages as Flower
serializes them, both ways, for training and evaluation, all nodes together; the first round, in
which nodes get the model, is among them. Seconds are medians over the rounds but the first.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich.console import Console
from rich.table import Table

EXAMPLE = Path(__file__).parents[1] / "examples" / "flower"
NODES = 10
LAST = "FIGURES "


class CountingGrid:
    """Flower's grid, and the bytes of the messages that cross it."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid
        self.calls: list[tuple[int, int, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> Any:
        began = time.monotonic()
        sent = list(messages)
        replies = list(self._grid.send_and_receive(sent, timeout=timeout))
        self.calls.append((_bytes(sent), _bytes(replies), time.monotonic() - began))
        return replies


def _bytes(messages: Iterable[Any]) -> int:
    from flwr.common.serde import message_to_proto

    return sum(message_to_proto(message).ByteSize() for message in messages)


def work(app: Path, rounds: int, seed: int) -> None:
    """Run one app in this process, and print what it came to."""
    sys.path.insert(0, str(app))
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation
    from quickstart import client_app, server_app

    config = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    server, grids, accuracies = ServerApp(), [], []
    test = server_app.evaluate

    def evaluate(server_round: int, arrays: Any) -> Any:
        tested = test(server_round, arrays)
        accuracies.append(tested["accuracy"])
        return tested

    server_app.evaluate = evaluate

    @server.main()  # type: ignore[untyped-decorator]
    def _main(grid: Any, context: Any) -> None:
        context.run_config = {**config, "num-server-rounds": rounds, "seed": seed}
        grids.append(CountingGrid(grid))
        server_app.main(grids[0], context)

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client_app.app, NODES, backend_config=resources)
    print(LAST + json.dumps({"calls": grids[0].calls, "accuracies": accuracies}), flush=True)


def figures(app: str, rounds: int, seed: int, data: Path | None) -> dict[str, Any]:
    """Run one app in a process of its own."""
    arguments = [sys.executable, __file__, "--worker", app, "--rounds", str(rounds)]
    path = os.pathsep.join([str(EXAMPLE / app), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = dict(os.environ) | {"PYTHONPATH": path}
    if data is not None:
        env["FASHION_MNIST"] = str(data.resolve())
    ended = subprocess.run(
        [*arguments, "--seeds", str(seed)], env=env, capture_output=True, text=True, check=False
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith(LAST)]
    if not lines:
        raise SystemExit(f"{app}, seed {seed}: {(ended.stdout + ended.stderr)[-3000:]}")
    found = json.loads(lines[0].removeprefix(LAST))
    trains, evaluations = found["calls"][::2], found["calls"][1::2]
    seconds = [a[2] + b[2] for a, b in zip(trains, evaluations, strict=True)]
    sizes = [sum(a[:2]) + sum(b[:2]) for a, b in zip(trains, evaluations, strict=True)]
    figure = {
        "app": app,
        "seed": seed,
        "bytes_per_round": mean(sizes),
        "later_bytes_per_round": mean(sizes[1:]),
        "down_bytes": sum(a[0] + b[0] for a, b in zip(trains, evaluations, strict=True)),
        "up_bytes": sum(a[1] + b[1] for a, b in zip(trains, evaluations, strict=True)),
        "round_s": median(seconds[1:]),
        "accuracy": found["accuracies"][-1],
        "accuracies": found["accuracies"],
    }
    # One takes minutes.
    print(json.dumps(figure), file=sys.stderr, flush=True)
    return figure


def show(console: Console, runs: list[dict[str, Any]]) -> None:
    table = Table("seed", "app", "kB a round", "times fewer", "but round 1", "accuracy", "s/round")
    for before, after in zip(runs[::2], runs[1::2], strict=True):
        for run in (before, after):
            table.add_row(
                str(run["seed"]),
                run["app"],
                f"{run['bytes_per_round'] / 1000:.1f}",
                f"{before['bytes_per_round'] / run['bytes_per_round']:.1f}",
                f"{before['later_bytes_per_round'] / run['later_bytes_per_round']:.1f}",
                f"{100 * run['accuracy']:.2f} %",
                f"{run['round_s']:.2f}",
            )
    console.print(table)
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    console.print(
        f"mean: {mean(b['bytes_per_round'] / a['bytes_per_round'] for b, a in pairs):.1f} times "
        f"fewer bytes, {100 * mean(a['accuracy'] - b['accuracy'] for b, a in pairs):+.2f} points"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fashion-mnist", type=Path, help="folder of it; else digits")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(EXAMPLE / options.worker, options.rounds, options.seeds[0])
        return
    runs = [
        figures(app, options.rounds, seed, options.fashion_mnist)
        for seed in options.seeds
        for app in ("before", "after")
    ]
    show(Console(), runs)
    if options.out is not None:
        options.out.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
