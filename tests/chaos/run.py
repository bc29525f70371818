"""Chaos: a federation whose clients and server are killed, frozen and cut off.

    python tests/chaos/run.py --clients 20 --rounds 40 --server-kills 3

Real processes on this machine. In every round some clients, drawn at random, are killed and
started again, stopped and let go on, or cut off the network, each at a random moment; the
server is killed and resumed. A calm run with the same settings comes first. Prints a table of
what must hold, and ends with code 1 if anything does not.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))
from chaos.wiretap import Tap
from checks import Check, conclude
from system.commands import free_port

MARK = "STARTED_BY_CHAOS"
SHARE = 0.3
LIMIT_S = 1500.0
POLL_S = 0.02
# Python and the C library need a while until they ask for no more.
WARM_ROUNDS = 3
GROWTH_MB, GROWTH_FDS = 24.0, 4
ACCURACY = 0.02


@dataclass(frozen=True)
class Options:
    clients: int
    rounds: int
    server_kills: int
    seed: int


@dataclass(frozen=True)
class Sample:
    """Memory and open files of a process after a round."""

    pid: int
    round: int
    rss_mb: float
    fds: int


@dataclass
class Federation:
    """The processes of a run, and the relays between them."""

    folder: Path
    options: Options
    port: int = field(default_factory=free_port)
    taps: list[Tap] = field(default_factory=list)
    clients: list[asyncio.subprocess.Process] = field(default_factory=list)
    server: asyncio.subprocess.Process | None = None
    samples: list[Sample] = field(default_factory=list)
    over: bool = False

    async def start(self) -> None:
        await self.start_server("--out", str(self.folder / "run"), *_settings(self.options))
        for number in range(self.options.clients):
            tap = Tap(self.port)
            await tap.start()
            self.taps.append(tap)
            self.clients.append(await self.start_client(number))

    async def start_server(self, *arguments: str) -> None:
        self.server = await self._fedaq("server.log", "server", *arguments)

    async def start_client(self, number: int) -> asyncio.subprocess.Process:
        part = f"{number + 1}/{self.options.clients}"
        return await self._fedaq(
            f"client-{number + 1}.log", "client", "--partition", part,
            "--server", f"127.0.0.1:{self.taps[number].port}", "--give-up-after", "30",
        )  # fmt: skip

    async def _fedaq(self, log: str, *arguments: str) -> asyncio.subprocess.Process:
        if arguments[0] == "server":
            arguments = (*arguments, "--port", str(self.port))
        with (self.folder / log).open("ab") as file:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "fedaq", *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file,
                env={**os.environ, MARK: str(self.folder)},
            )  # fmt: skip

    def committed(self) -> int:
        """Return the last committed round."""
        path = self.folder / "run" / "ledger.sqlite"
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
        ):
            (last,) = db.execute("SELECT MAX(round) FROM rounds").fetchone()
            return last or 0
        return 0

    def sample(self, number: int) -> None:
        assert self.server is not None
        for pid in (self.server.pid, *(client.pid for client in self.clients)):
            with suppress(OSError, IndexError):  # it has ended
                status = Path(f"/proc/{pid}/status").read_text()
                rss_kb = int(status.partition("VmRSS:")[2].split()[0])
                fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                self.samples.append(Sample(pid, number, rss_kb / 1024, fds))

    async def end(self) -> None:
        """Let clients leave by themselves, and make sure that nothing is left."""
        self.over = True
        processes = [p for p in (self.server, *self.clients) if p is not None]
        for process in processes:
            _signal(process, signal.SIGCONT)
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.gather(*(process.wait() for process in processes))
        for process in processes:
            _signal(process, signal.SIGKILL)
            await process.wait()
        for tap in self.taps:
            await tap.stop()


def _settings(options: Options) -> list[str]:
    assignments = {
        "min_clients": 0.4, "network.return_wait_s": 3, "network.heartbeat_interval_s": 1,
        "network.round_deadline_s": 30, "network.join_timeout_s": 120,
    }  # fmt: skip
    return [
        "--task", "digits", "--clients", str(options.clients), "--rounds", str(options.rounds),
        *(word for name, value in assignments.items() for word in ("--set", f"{name}={value}")),
    ]  # fmt: skip


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


async def calm(folder: Path, options: Options, say: Console) -> Federation:
    federation = Federation(folder, options)
    await federation.start()
    assert federation.server is not None
    await asyncio.wait_for(federation.server.wait(), LIMIT_S)
    await federation.end()
    say.print(f"calm: {federation.committed()} rounds")
    return federation


async def chaos(folder: Path, options: Options, say: Console) -> tuple[Federation, list[str]]:
    """Run the federation through everything; return it and what was done to it."""
    draw = random.Random(options.seed)
    federation, done = Federation(folder, options), list[str]()
    deaths = sorted(draw.sample(range(2, max(3, options.rounds // 2) + 1), options.server_kills))
    await federation.start()
    tasks = set[asyncio.Task[None]]()
    last, end = -1, time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        assert federation.server is not None
        if federation.server.returncode is not None:
            break
        number = federation.committed()
        if number == last:
            await asyncio.sleep(POLL_S)
            continue
        last = number
        federation.sample(number)
        if number == 0:
            continue
        for victim in draw.sample(range(options.clients), max(1, int(SHARE * options.clients))):
            disturbed = _disturb(federation, victim, draw.choice(("kill", "freeze", "cut")),
                                 draw.uniform(0, 2.0), draw.uniform(0.2, 4.0), done)  # fmt: skip
            tasks.add(asyncio.create_task(disturbed))
        if deaths and number >= deaths[0]:
            deaths.pop(0)
            await asyncio.sleep(draw.uniform(0, 1.5))
            if federation.server.returncode is None:
                federation.server.kill()
                await federation.server.wait()
                done.append("server kill")
                await asyncio.sleep(draw.uniform(0, 1.0))
                await federation.start_server("--resume", str(folder / "run"))
        say.print(f"round {number}: {len(done)} disturbances so far")
    federation.over = True
    await asyncio.gather(*tasks)
    await federation.end()
    return federation, done


async def _disturb(
    federation: Federation, victim: int, how: str, delay_s: float, for_s: float, done: list[str]
) -> None:
    await asyncio.sleep(delay_s)
    process = federation.clients[victim]
    if federation.over or process.returncode is not None:
        return
    done.append(how)
    if how == "cut":
        federation.taps[victim].cut(for_s)
    elif how == "freeze":
        _signal(process, signal.SIGSTOP)
        await asyncio.sleep(for_s)
        _signal(process, signal.SIGCONT)
    else:
        _signal(process, signal.SIGKILL)
        await process.wait()
        await asyncio.sleep(for_s / 4)
        if not federation.over:
            federation.clients[victim] = await federation.start_client(victim)


def checks(before: Federation, after: Federation, options: Options) -> list[Check]:
    ended = after.server.returncode if after.server else None
    quiet, wild = (json.loads((f.folder / "run" / "run.json").read_text()) for f in (before, after))
    accuracies = [run["summary"]["final_accuracy"] for run in (quiet, wild)]
    numbers = [record["round"] for record in wild["rounds"]]
    counted, differing = _compared(after)
    growth_mb, growth_fds, rounds = _growth(after)
    left = _left_processes(after)
    return [
        Check("the run ends", f"code {ended}", ended == 0),
        Check("every round is committed", f"{len(numbers)} of {options.rounds}",
              numbers == list(range(1, options.rounds + 1))),
        Check("accuracy as in the calm run", f"{accuracies[1]:.4f}, calm {accuracies[0]:.4f}",
              accuracies[1] >= accuracies[0] - ACCURACY),
        Check("bytes of the ledger as on the sockets",
              f"{counted} transfers each way, {len(differing)} differ {differing[:3] or ''}",
              counted > 0 and not differing),
        Check("bytes of the ledger as in run.json", *_sums(after, wild)),
        Check("no process is left", f"{left}", not left),
        Check(f"memory of the server, over its last {rounds} rounds", f"{growth_mb:+.1f} MB",
              growth_mb < GROWTH_MB),
        Check("open files of the server", f"{growth_fds:+d}", growth_fds <= GROWTH_FDS),
    ]  # fmt: skip


def _transfers(federation: Federation) -> list[tuple[int, str, str, int]]:
    """Return (round, client, direction, bytes) of the transfers of counted updates."""
    with closing(sqlite3.connect(federation.folder / "run" / "ledger.sqlite")) as db:
        return db.execute(
            "SELECT t.round, t.client, t.direction, t.payload_bytes "
            "FROM transfers t JOIN transfers u "
            "ON u.round = t.round AND u.client = t.client "
            "WHERE u.direction = 'uplink' AND u.counted = 1"
        ).fetchall()


def _compared(federation: Federation) -> tuple[int, list[str]]:
    """Compare the ledger with what passed the relays."""
    differing, found = [], _transfers(federation)
    for number, client, direction, payload_bytes in found:
        tap = federation.taps[int(client.rpartition("-")[2]) - 1]
        down, up = tap.passed.get(number, (-1, -1))
        passed = up if direction == "uplink" else down
        if passed != payload_bytes:
            differing.append(f"round {number} {client} {direction}: {payload_bytes} / {passed}")
    return len(found) // 2, differing


def _sums(federation: Federation, document: dict[str, object]) -> tuple[str, bool]:
    with closing(sqlite3.connect(federation.folder / "run" / "ledger.sqlite")) as db:
        query = "SELECT SUM(payload_bytes) FROM transfers WHERE direction = ? AND counted = 1"
        up, down = (db.execute(query, (name,)).fetchone()[0] for name in ("uplink", "downlink"))
        (energy_j,) = db.execute("SELECT SUM(energy_j) FROM rounds").fetchone()
    summary = document["summary"]
    assert isinstance(summary, dict)
    same = (up, down) == (summary["uplink_payload_bytes"], summary["downlink_payload_bytes"])
    same = same and abs(energy_j - summary["energy_j"]) <= 1e-9 * energy_j
    return f"{up} up, {down} down, {energy_j:.4f} J", same


def _growth(federation: Federation) -> tuple[float, int, int]:
    """Return by how much the last server grew after its first rounds."""
    assert federation.server is not None
    own = [s for s in federation.samples if s.pid == federation.server.pid][WARM_ROUNDS:]
    if len(own) < 2:
        return 0.0, 0, 0
    third = max(1, len(own) // 3)
    early, late = own[:third], own[-third:]
    return (
        max(s.rss_mb for s in late) - max(s.rss_mb for s in early),
        max(s.fds for s in late) - max(s.fds for s in early),
        len(own),
    )


def _left_processes(federation: Federation) -> list[str]:
    """Return processes that were started for this run, or by those, and are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if f"{MARK}={federation.folder}".encode() in (entry / "environ").read_bytes():
                    found.append(entry.name)
    return found


async def both(options: Options, say: Console) -> list[Check]:
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / "calm", Path(name) / "chaos"]
        for folder in folders:
            folder.mkdir()
        before = await calm(folders[0], options, say)
        after, done = await chaos(folders[1], options, say)
        counts = {how: done.count(how) for how in sorted(set(done))}
        say.print("done: " + ", ".join(f"{count} x {how}" for how, count in counts.items()))
        try:
            return checks(before, after, options)
        except Exception:
            say.print((folders[1] / "server.log").read_text()[-3000:])
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--server-kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options, say = Options(**vars(parser.parse_args())), Console()
    began = time.monotonic()
    found = asyncio.run(both(options, say))
    conclude(found, f"{options}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
