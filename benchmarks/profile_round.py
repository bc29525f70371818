"""Where the processor time of a round without training goes, server and clients together.

    python benchmarks/profile_round.py --out profile.json

Runs the round of round.py with 10 M parameters, 10 clients and 4/4 bits, and leaves out the
first rounds. Each process counts its own processor time: in the loops of the codec and in
what stands for training, which shrinks all weights and takes the difference (timed around
every call); in the kernel (system time: bytes through sockets, page faults); and in all
else: Python, protobuf, gRPC.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from round import HERE, Case, Process, client_arguments, free_port, server_arguments

CASE = Case(10, 10, 4)
# The first ones allocate what the others use again.
ROUNDS, LEFT_OUT = 34, 4
WRAPPER = """
import atexit, json, os, resource, runpy, sys, threading, time
from importlib import import_module
from fedaq.codec import kernels
spent, lock, told = {}, threading.Lock(), []
def timed(name, loop):
    def call(*arguments):
        began = time.thread_time()
        result = loop(*arguments)
        took = time.thread_time() - began
        with lock:
            spent[name] = spent.get(name, 0.0) + took
        return result
    return call
def tell(on_round):
    def call(*arguments):
        on_round(*arguments)
        used = resource.getrusage(resource.RUSAGE_SELF)
        told.append({**spent, "user": used.ru_utime, "system": used.ru_stime})
    return call
if "client" in sys.argv[1:]:
    from fedaq_client.training import Learner
    Learner.train = timed("training", Learner.train)
    from fedaq_client.cli.display import Display
else:
    from fedaq_server.cli.display import Display
Display.on_round = tell(Display.on_round)
loops = {name: timed(name, loop) for name, loop in kernels._loops().items()}
kernels._loops = lambda: loops
atexit.register(lambda: open(os.environ["PROFILE"], "w").write(json.dumps(told)))
sys.argv = sys.argv[1:]
runpy.run_module("fedaq", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Share:
    """Processor seconds of one round, of one side."""

    side: str
    what: str
    seconds: float


def shares(settings: list[str]) -> tuple[list[Share], float]:
    """Return where the time of a round went, and the median of the seconds of a round."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        server = [*server_arguments(CASE, ROUNDS, port, folder), *settings]
        processes = []
        for number, command in enumerate([server, *client_arguments(CASE, port)]):
            os.environ["PROFILE"] = str(folder / f"{number}.json")
            arguments = ["-c", WRAPPER, *command[1:]]  # without -m
            processes.append(Process(arguments, folder / f"{number}.log"))
        for process in processes:
            process.peak_mb()
        told = [
            json.loads((folder / f"{number}.json").read_text()) for number in range(len(processes))
        ]
        records = json.loads((folder / "run" / "run.json").read_text())["rounds"][LEFT_OUT:]
    seconds = median(record["seconds"] for record in records)
    return [*shares_of("server", told[:1]), *shares_of("clients", told[1:])], seconds


def shares_of(side: str, processes: list[list[dict[str, float]]]) -> list[Share]:
    """Return what the rounds cost one side, from what its processes had spent after each round."""
    spent: dict[str, float] = {}
    for rounds in processes:
        before, after = rounds[LEFT_OUT - 1], rounds[-1]
        for kind in after:
            took = (after[kind] - before.get(kind, 0.0)) / (len(rounds) - LEFT_OUT)
            spent[kind] = spent.get(kind, 0.0) + took
    user, system = spent.pop("user"), spent.pop("system")
    result = [Share(side, name, took) for name, took in sorted(spent.items()) if took > 0]
    result.append(Share(side, "kernel", system))
    result.append(Share(side, "all else", user - sum(spent.values())))
    return result


def show(console: Console, parts: list[Share], seconds: float) -> None:
    total = sum(part.seconds for part in parts)
    table = Table("", "", "ms", "share", title_justify="left",
                  title=f"Processor time of a round: {total:.2f} s in {seconds:.2f} s")  # fmt: skip
    for part in parts:
        table.add_row(part.side, part.what, f"{1000 * part.seconds:.0f}",
                      f"{part.seconds / total:.1%}")  # fmt: skip
    kernel, training, rest = (
        sum(part.seconds for part in parts if part.what == what)
        for what in ("kernel", "training", "all else")
    )
    table.add_row("both", "kernel", f"{1000 * kernel:.0f}", f"{kernel / total:.1%}")
    table.add_row("both", "all else", f"{1000 * rest:.0f}", f"{rest / total:.1%}")
    table.add_row("both", "all else, without training in the whole", f"{1000 * rest:.0f}",
                  f"{rest / (total - training):.1%}")  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", action="append", default=[], help="a setting of the server")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    os.chdir(HERE)
    parts, seconds = shares([word for text in options.set for word in ("--set", text)])
    show(Console(), parts, seconds)
    if options.out is not None:
        document = {
            "machine": platform.platform(),
            "python": sys.version,
            "round_s": seconds,
            "parts": [asdict(part) for part in parts],
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
