"""Mutated messages against every decoder and a live server, under a limit of memory.

    python tests/fuzz/run.py --messages 200000

So many go to the decoders (`targets`, guided by coverage), and as many to live servers
(`live`): conversations that hypothesis changes, streams of changed messages, connections of
bytes that are hardly HTTP/2. A few are sent in runs with masks and noise (`private_runs`). A
finding is an exception that no peer is meant to see, a crash, a message that takes seconds, rounds
that do not go on, or memory that grows. The exit code is 1 if there is one.
"""

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fuzz import live, private_runs, raw_bytes  # noqa: E402
from fuzz.live import Count, FindingError, Honest, Server  # noqa: E402

# Shares of the messages, in percent.
DECODERS = {
    "server": 35, "client": 25, "archive": 10, "entropy": 10, "classes": 5, "inspect": 5,
    "run.json": 5, "signature": 5,
}  # fmt: skip
CONVERSATIONS_PER_MILLE = 4
PRIVATE_PER_MILLE = 5
SCHEMES = ("fedaq", "fixed")
WARM_SHARE = 0.2
# What a process may take beyond what it has when it is warm, and what it may keep.
LIMIT_MB = 1024
GROWTH_MB = 64
GUIDED_TIMEOUT_S = 1800
# Where files cost little, if there is such a place.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass(frozen=True)
class Row:
    """What one target took, and what came of it."""

    target: str
    messages: int
    seconds: float
    growth_mb: float
    finding: str = ""

    def judged(self) -> "Row":
        """Return the row with growth as a finding."""
        if self.finding or self.growth_mb <= GROWTH_MB:
            return self
        return Row(self.target, self.messages, self.seconds, self.growth_mb, "memory grows")


def main() -> None:
    """Fuzz, print the table, and exit with 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep inputs of findings here")
    chosen = parser.parse_args()
    # What is refused in this process, and why, is not a finding.
    logging.disable(logging.WARNING)
    console = Console()
    rows: list[Row] = []

    def report(row: Row) -> None:
        rows.append(row.judged())
        console.print(f"{row.target}: {row.messages:,} messages in {row.seconds:.0f} s")

    with TemporaryDirectory(prefix="fedaq-fuzz-", dir=MEMORY) as temporary:
        folder = chosen.folder or Path(temporary)
        with ThreadPoolExecutor(1) as beside:
            decoders = beside.submit(fuzz_decoders, chosen.messages, chosen.seed, folder, report)
            refusals = asyncio.run(fuzz_servers(chosen.messages, chosen.seed, report))
            decoders.result()
    rows.sort(key=lambda row: row.target.partition(",")[0])
    console.print(table_of(rows))
    console.print("refused by the servers:", refusals)
    for row in rows:
        if row.finding:
            console.print(f"{row.target}: {row.finding}", markup=False)
    sys.exit(any(row.finding for row in rows))


def table_of(rows: list[Row]) -> Table:
    """Return the table of all targets."""
    table = Table("target", "messages", "findings", "seconds", "MB growth")
    for row in rows:
        table.add_row(
            row.target, f"{row.messages:,}", str(int(bool(row.finding))), f"{row.seconds:.1f}",
            f"{row.growth_mb:.1f}",
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "all", f"{sum(row.messages for row in rows):,}",
        str(sum(bool(row.finding) for row in rows)), f"{sum(row.seconds for row in rows):.1f}", "",
    )  # fmt: skip
    return table


# ---- Decoders ---------------------------------------------------------------


def fuzz_decoders(messages: int, seed: int, folder: Path, report: Callable[[Row], None]) -> None:
    """Fuzz the decoders, one process each."""
    for name, share in DECODERS.items():
        report(_guided(name, messages * share // 100, seed, folder / name))


def _guided(name: str, messages: int, seed: int, folder: Path) -> Row:
    command = [sys.executable, str(HERE / "guided.py"), name, str(messages), str(seed),
               str(LIMIT_MB), str(folder)]  # fmt: skip
    started = time.monotonic()
    try:
        ended = subprocess.run(command, capture_output=True, timeout=GUIDED_TIMEOUT_S, check=False,
                               env={**os.environ, "TMPDIR": str(folder.parent)})  # fmt: skip
    except subprocess.TimeoutExpired:
        return Row(f"decoder {name}", 0, time.monotonic() - started, 0, "it hangs")
    out, err = (said.decode(errors="replace") for said in (ended.stdout, ended.stderr))
    if ended.returncode != 0:
        finding = f"code {ended.returncode}: {out[-2000:]}\n{err[-2000:]}"
        return Row(f"decoder {name}", 0, time.monotonic() - started, 0, finding)
    report = json.loads(out.splitlines()[-1])
    return Row(f"decoder {name}", report["inputs"], report["seconds"], report["growth_mb"])


# ---- Live servers -----------------------------------------------------------


async def fuzz_servers(
    messages: int, seed: int, report: Callable[[Row], None]
) -> Mapping[str, int]:
    """Fuzz a live server of each scheme; return what they refused, by reason."""
    refusals: Counter[str] = Counter()
    for scheme in SCHEMES:
        try:
            with TemporaryDirectory(prefix="fedaq-fuzz-", dir=MEMORY) as folder:
                async with live.beset(scheme, LIMIT_MB, Path(folder)) as (server, honest):
                    await _beset(server, honest, scheme, messages // len(SCHEMES), seed, report)
                    refusals.update(server.refusals())
        except* (FindingError, TimeoutError) as group:
            ended = group.exceptions[0]
            report(Row(f"live, {scheme}", 0, 0, 0, str(ended) or type(ended).__name__))
    with TemporaryDirectory(prefix="fedaq-fuzz-", dir=MEMORY) as folder:
        for way in private_runs.WAYS:
            await _private(way, messages * PRIVATE_PER_MILLE // 1000, seed, Path(folder), report)
    return dict(refusals.most_common())


async def _private(
    way: str, messages: int, seed: int, folder: Path, report: Callable[[Row], None]
) -> None:
    started, target = time.monotonic(), f"runs, {way}"
    try:
        count = await private_runs.private_runs(way, messages, seed, folder)
    except FindingError as finding:
        report(Row(target, 0, time.monotonic() - started, 0, str(finding)))
    else:
        report(Row(target, count.messages, time.monotonic() - started, 0.0))


async def _beset(
    server: Server,
    honest: Honest,
    scheme: str,
    messages: int,
    seed: int,
    report: Callable[[Row], None],
) -> None:
    """Let peers of every kind at a server, and count what its memory gains once it is warm."""
    started, before_mb = time.monotonic(), server.rss_mb()
    count = await live.conversations(
        server, honest, max(10, messages * CONVERSATIONS_PER_MILLE // 1000), seed
    )
    report(_row(f"conversations, {scheme}", count, started, server, before_mb))
    for kind, share, act in (
        ("streams", 80, live.streams),
        ("connections", 20, raw_bytes.connections),
    ):
        started, count = time.monotonic(), Count()
        due = messages * share // 100
        await act(server.address, int(WARM_SHARE * due), seed, count)
        before_mb = server.rss_mb()
        await act(server.address, due, seed + 1, count)
        await honest.completes_rounds(2)
        server.check()
        report(_row(f"{kind}, {scheme}", count, started, server, before_mb))


def _row(target: str, count: Count, started: float, server: Server, before_mb: float) -> Row:
    return Row(target, count.messages, time.monotonic() - started, server.rss_mb() - before_mb)


if __name__ == "__main__":
    main()
