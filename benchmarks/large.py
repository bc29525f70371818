"""A large model through `fedaq server` and two clients: memory of each process, time of a round.

    python benchmarks/large.py --millions 100
    python benchmarks/large.py --millions 100 --tensors 20000 --rounds 3

Weights are normal, of one tensor for each `--tensors` values; training moves one value of a
hundred, so that what is measured is the way and not the training. Memory is the peak of a process
above that of one which imports the same and has a model of ten values, in multiples of the model.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from fedaq.tasks import Evaluation, Examples, Task

HERE = Path(__file__).parent
ROUND_TIMEOUT_S = 3600


class Large(nn.Module):
    """Weights, and nothing that computes with them."""

    def __init__(self) -> None:
        super().__init__()
        values, of_one = int(os.environ["LARGE_VALUES"]), int(os.environ["LARGE_OF_ONE"])
        self.parts = nn.ParameterList(
            nn.Parameter(torch.empty(min(of_one, values - at)).normal_(0, 0.02))
            for at in range(0, values, of_one)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def train(model: nn.Module, data: object, training: object, seed: int) -> float:
    """Move one value of a hundred."""
    at = 0
    with torch.no_grad():
        for part in model.parameters():
            part[-at % 100 :: 100] += 0.3
            at += len(part)
    return 1.0


task = Task(
    "large", Large, lambda _: Examples(torch.zeros(4, 1), torch.zeros(4).long()),
    lambda _: Examples(torch.zeros(4, 1), torch.zeros(4).long()),
    train=train, evaluate=lambda model, data: Evaluation(0.5, 1.0),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One federation: peaks in bytes, seconds of a usual round."""

    server: int
    client: int
    round_s: float
    sent_kb: float


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def federation(values: int, of_one: int, rounds: int, scheme: str) -> Measured:
    """Run a server and two clients in processes of their own."""
    with TemporaryDirectory() as folder:
        port = _free_port()
        environment = {
            **os.environ, "LARGE_VALUES": str(values), "LARGE_OF_ONE": str(of_one),
            "PYTHONPATH": str(HERE),
        }  # fmt: skip
        common = [sys.executable, "-m", "fedaq"]
        server = [
            *common, "server", "--task", "large:task", "--clients", "2", "--rounds", str(rounds),
            "--scheme", scheme, "--port", str(port), "--out", f"{folder}/run",
            "--set", f"network.round_deadline_s={ROUND_TIMEOUT_S}",
        ]  # fmt: skip
        client = [
            *common, "client", "--task", "large:task", "--server", f"127.0.0.1:{port}",
            "--threads", "1",
        ]  # fmt: skip
        commands = [server, *([*client, "--partition", f"{n}/2"] for n in (1, 2))]
        started = [
            subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
            for command in commands
        ]
        peaks = []
        for process in started:
            _, status, usage = os.wait4(process.pid, 0)
            if os.waitstatus_to_exitcode(status):
                raise SystemExit(f"{' '.join(process.args)} failed")  # type: ignore[arg-type]
            peaks.append(usage.ru_maxrss * 1024)
        records = json.loads(Path(folder, "run", "run.json").read_text())["rounds"]
    last = records[-1]
    sent = last["uplink_payload_bytes"] + last["downlink_payload_bytes"]
    return Measured(peaks[0], max(peaks[1:]), last["seconds"], sent / 1e3)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=[100.0])
    parser.add_argument("--tensors", type=int, default=10_000_000, help="values of one tensor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--schemes", nargs="+", default=["fedaq", "fp32"])
    asked = parser.parse_args()
    print("| weights | scheme | server, models | client, models | a round | sent in it | in all |")
    print("|---|---|---|---|---|---|---|")
    for scheme in asked.schemes:
        nothing = federation(10, 10, 2, scheme)
        for millions in asked.millions:
            values = int(millions * 1e6)
            began = time.monotonic()
            found = federation(values, asked.tensors, asked.rounds, scheme)
            model = 4 * values
            print(
                f"| {millions:g} M | {scheme} | {(found.server - nothing.server) / model:.2f} "
                f"| {(found.client - nothing.client) / model:.2f} | {found.round_s:.2f} s "
                f"| {found.sent_kb:.2f} kB | {time.monotonic() - began:.0f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
