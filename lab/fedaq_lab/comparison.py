"""Several schemes and seeds, each run as `fedaq run` does it, and what they add up to."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedaq.errors import UserError, why
from fedaq.files import replacing
from fedaq.process.stopping import FOLLOWS_PARENT
from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq_lab import comparison_table
from fedaq_lab.comparison_table import Line

DEFAULT_SCHEMES = ("fp32", "fixed", "feddq", "adaquantfl", "dadaquant", "fedaq")
_POLL_S = 0.5


@dataclass(frozen=True)
class Job:
    """One run of the comparison.

    Attributes
    ----------
    line : str
        The scheme with its settings, as it was given.
    """

    line: str
    seed: int
    folder: Path
    command: tuple[str, ...]

    def record(self) -> dict[str, Any] | None:
        """Return ``run.json`` as far as it has come."""
        try:
            run: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        except (OSError, ValueError):
            return None
        return run

    def finished(self) -> bool:
        """Tell whether the run came to its end."""
        run = self.record()
        return run is not None and bool(run["finished"])


def run_comparison(
    *,
    schemes: Sequence[str] | None,
    grid: str | None,
    seeds: str,
    target: float,
    until_target: bool,
    options: Sequence[str],
    folder: Path,
    jobs: int,
    place: Sequence[str] = (),
) -> None:
    """Run what is missing, then print the table and write ``compare.json`` and pictures.

    `place` has options that say where runs are carried out, and change nothing of them.

    Raises
    ------
    UserError
        If an option is wrong, or the folder holds another comparison.
    FedaqError
        If a run fails.
    """
    lines = list(schemes or ([] if grid else DEFAULT_SCHEMES)) + _grid_lines(grid)
    plan = _plan(lines, _seeds(seeds), target, until_target, [*options, *place], folder)
    _claim(folder, {"options": list(options), "target": target, "until_target": until_target})
    _run_all(plan, jobs)
    comparison = comparison_table.summarize(
        [Line(line, tuple(_runs(plan, line))) for line in lines], target
    )
    with replacing(folder / "compare.json") as partial:
        partial.write_text(json.dumps(comparison, indent=1) + "\n")
    comparison_table.show(comparison)
    pictures = comparison_table.draw(comparison, folder)
    console.print("results: " + ", ".join(str(p) for p in [folder / "compare.json", *pictures]))


def _grid_lines(grid: str | None) -> list[str]:
    if grid is None:
        return []
    match = re.fullmatch(r"(\d+)-(\d+)/(\d+)-(\d+)", grid)
    if match is None:
        raise UserError(f"--grid {grid}: write it as 1-8/1-8, widths up and widths down")
    first_up, last_up, first_down, last_down = map(int, match.groups())
    widths = product(range(first_up, last_up + 1), range(first_down, last_down + 1))
    return [f"fixed:fixed.uplink_bits={u},fixed.downlink_bits={d}" for u, d in widths]


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text}: write numbers separated by commas, 1,2,3") from None


def _plan(
    lines: Sequence[str],
    seeds: Sequence[int],
    target: float,
    until_target: bool,
    options: Sequence[str],
    folder: Path,
) -> list[Job]:
    plan = []
    for line, seed in product(lines, seeds):
        name, _, assignments = line.partition(":")
        settings = [text for text in assignments.split(",") if text]
        if until_target:
            settings.append(f"target={target}")
        # Checked here, so that a typo in the last line does not show after hours.
        load_settings(flags={"scheme": name, "seed": seed}, assignments=settings)
        place = folder / comparison_table.folder_of(line) / f"seed-{seed}"
        command = (
            *(sys.executable, "-P", "-m", "fedaq", "run", *options),
            *(f"--scheme={name}", f"--seed={seed}", f"--out={place}"),
            *(f"--set={text}" for text in settings),
        )
        plan.append(Job(line, seed, place, command))
    return plan


def _claim(folder: Path, facts: dict[str, Any]) -> None:
    """Make the folder, or check that it belongs to the same comparison."""
    path = folder / "options.json"
    content = json.dumps(facts, indent=1).encode() + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes() != content:
            raise UserError(
                f"--out {folder}: a comparison with other options is in there; choose another "
                f"folder, or the options in {path}"
            )
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be used: {why(error)}") from None


def _run_all(plan: Sequence[Job], jobs: int) -> None:
    waiting = [job for job in plan if not job.finished()]
    if len(waiting) < len(plan):
        console.print(f"{len(plan) - len(waiting)} of {len(plan)} runs were done before")
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} runs"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        bar = progress.add_task("comparing", total=len(waiting))
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    job = waiting.pop(0)
                    running.append((job, _start(job)))
                time.sleep(_POLL_S)
                for job, process in [*running]:
                    if process.poll() is not None:
                        running.remove((job, process))
                        _check(job, process)
                        progress.advance(bar)
                progress.update(bar, description=_describe(running))
        finally:
            for _, process in running:
                process.terminate()
            for _, process in running:
                process.wait()


def _start(job: Job) -> "subprocess.Popen[bytes]":
    # What a stopped run left behind is done again from its start.
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with job.folder.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, FOLLOWS_PARENT: "1"},
        )


def _check(job: Job, process: "subprocess.Popen[bytes]") -> None:
    # One that ended in NaN came to its end: the table says so.
    if not job.finished():
        said = job.folder.with_suffix(".log").read_text(errors="replace").strip()
        last = said.rpartition("\n")[2].removeprefix("fedaq: ")
        raise UserError(f"{job.line}, seed {job.seed}: {last or 'the run ended early'}")


def _describe(running: Sequence[tuple[Job, "subprocess.Popen[bytes]"]]) -> str:
    parts = []
    for job, _ in running:
        run = job.record()
        done = len(run["rounds"]) if run else 0
        parts.append(f"{comparison_table.short(job.line)} seed {job.seed} round {done}")
    return "; ".join(parts) or "done"


def _runs(plan: Sequence[Job], line: str) -> list[dict[str, Any]]:
    runs = (job.record() for job in plan if job.line == line)
    return [run for run in runs if run is not None]
