"""What a run of thousands of rounds costs: memory, disk, time, and time to resume.

    python benchmarks/long_run.py

A model of 10,000 parameters that goes for a random walk, two clients, all in one process. At each
mark the folder is copied as it then is; when all is over, processes of their own resume the copies.
Times of a round are those from commit to commit since the mark before, medians unless said
otherwise; so is how late the event loop was at the most. Processor time is that of all threads,
user and system; unlike the time on the clock, it hardly depends on what else the machine does.
Written is what the process handed to the system, the model of each round and
SQLite's log included.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from fedaq.settings import Settings, load_settings
from fedaq.tasks import Evaluation, Examples, Task, Training
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run

MARKS = (100, 1_000, 3_000, 10_000, 20_000)
# How often the event loop is looked at.
TICK_S = 0.01


def _data(_: object) -> Examples:
    return Examples(torch.zeros(64, 1), torch.zeros(64, dtype=torch.int64))


def _walk(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    steps = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=steps), alpha=0.01)
    return 1.0


task = Task(
    name="walk",
    model=lambda: nn.Sequential(nn.Linear(100, 90), nn.Linear(90, 10)),
    train_data=_data,
    test_data=_data,
    train=_walk,
    evaluate=lambda model, data: Evaluation(accuracy=0.0, loss=1.0),
)


def _settings(rounds: int, page: bool) -> Settings:
    flags = {"task": "long_run:task", "clients": 2, "rounds": rounds}
    if page:
        flags["network.dashboard_port"] = 0
    return load_settings(environment={}, flags=flags)


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return 4096 * pages


def _written_bytes() -> int:
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["wchar"])


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Since:
    """What happened since the mark before."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        self.rounds_s: list[float] = []
        self.processor_s: list[float] = []
        self.latest_s = 0.0
        self.written_bytes = _written_bytes()
        self._commit_s, self._used_s = time.perf_counter(), time.process_time()
        self._due_s = self._commit_s + TICK_S

    def committed(self) -> None:
        """Take note of a round."""
        now_s, used_s = time.perf_counter(), time.process_time()
        self.rounds_s.append(now_s - self._commit_s)
        self.processor_s.append(used_s - self._used_s)
        self._commit_s, self._used_s = now_s, used_s

    async def watch_loop(self) -> None:
        """Take note of how late the event loop is."""
        while True:
            self._due_s = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            self.latest_s = max(self.latest_s, time.perf_counter() - self._due_s)


def _run(folder: Path, rounds: int, page: bool) -> dict[int, dict[str, float]]:
    """Carry out a run; return what was seen at each mark, and leave copies of the folder."""
    seen: dict[int, dict[str, float]] = {}
    since = Since()

    def on_round(record: RoundRecord) -> None:
        since.committed()
        if record.round not in MARKS:
            return
        count = len(since.rounds_s)
        seen[record.round] = {
            "rss_bytes": _rss_bytes(),
            "folder_bytes": _folder_bytes(folder / "run"),
            "processor_s": median(since.processor_s),
            "round_s": median(since.rounds_s),
            "slowest_s": max(since.rounds_s),
            "late_s": since.latest_s,
            "written_bytes": (_written_bytes() - since.written_bytes) / count,
        }
        shutil.copytree(folder / "run", folder / f"at-{record.round}")
        # In place, for the loop is watched by a method of it.
        since.begin()

    async def carried_out() -> None:
        from fedaq_server.serve import page_shown

        watching = asyncio.create_task(since.watch_loop())
        async with page_shown(run):
            await federate(run)
        watching.cancel()

    (folder / "run").mkdir()
    ledger = Ledger(folder / "run")
    settings = _settings(rounds, page)
    ledger.begin(settings.model_dump(mode="json"))
    run = Run(settings, ledger, on_round)
    asyncio.run(carried_out())
    ledger.close()
    return seen


def _resume(folder: Path, rounds: int) -> None:
    """Bring a run to where its next round could begin; print how long that took."""
    settings = _settings(rounds, page=False)
    began = time.perf_counter()
    ledger = Ledger(folder)
    Run(settings, ledger, lambda record: None)
    print(json.dumps({"resume_s": time.perf_counter() - began}))
    ledger.close()


def _resumed(folder: Path, rounds: int) -> Mapping[str, Any]:
    command = [sys.executable, __file__, "--rounds", str(rounds), "--resume", str(folder)]
    # Of three, the first one also reads the libraries from the disk.
    said = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
    found: list[dict[str, Any]] = [json.loads(each.stdout.splitlines()[-1]) for each in said]
    return min(found, key=lambda each: float(each["resume_s"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=MARKS[-1])
    parser.add_argument("--page", action="store_true", help="with the page to watch")
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.resume is not None:
        _resume(arguments.resume, arguments.rounds)
        return
    with TemporaryDirectory() as name:
        seen = _run(Path(name), arguments.rounds, arguments.page)
        print(
            f"{'rounds':>7} {'RSS MB':>7} {'folder MB':>10} {'processor ms':>13} "
            f"{'ms a round':>11} {'slowest ms':>11} "
            f"{'loop late ms':>13} {'written kB':>11} {'resume s':>9}"
        )
        for mark, facts in seen.items():
            resumed = _resumed(Path(name) / f"at-{mark}", arguments.rounds)
            print(
                f"{mark:7,} {facts['rss_bytes'] / 1e6:7.1f} {facts['folder_bytes'] / 1e6:10.2f} "
                f"{1e3 * facts['processor_s']:13.1f} "
                f"{1e3 * facts['round_s']:11.1f} {1e3 * facts['slowest_s']:11.1f} "
                f"{1e3 * facts['late_s']:13.1f} {facts['written_bytes'] / 1e3:11.1f} "
                f"{resumed['resume_s']:9.3f}"
            )


if __name__ == "__main__":
    main()
