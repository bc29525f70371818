"""A server and four clients as separate hosts: network namespaces, a bridge, bad links.

    sudo python tests/netns/run.py

Needs root, iproute2 and nftables. With mutual TLS throughout:

1. one client's link loses 5 % of its packets each way, one carries 1 Mbit/s, one is 200 ms
   away each way: the model is that of the same run in one process, byte for byte;
2. a client is partitioned off for 25 s and back: the run goes on without it, and ends with it;
3. the server is killed and resumed: all clients are back within 10 s, and the model is the same.

Prints a table, and ends with code 1 if anything does not hold.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))
from checks import Check, conclude

HERE = Path(__file__).parent
CLIENTS = 4
PORT = 50051
SERVER = "10.77.0.10"
PREFIX = f"fq{os.getpid() % 10000}"
PATIENCE_S = 240.0
BACK_S = 10.0
RUN = ("--task", "digits", "--clients", str(CLIENTS))
DELAY_S = 0.2


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def inside(namespace: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *words]


@contextmanager
def hosts() -> Iterator[list[str]]:
    """Yield the namespaces of the server and the clients, all on one bridge."""
    names = [f"{PREFIX}s", *(f"{PREFIX}c{number}" for number in range(1, CLIENTS + 1))]
    middle = f"{PREFIX}b"
    try:
        ip("netns", "add", middle)
        ip("-n", middle, "link", "add", "bridge", "type", "bridge")
        ip("-n", middle, "link", "set", "bridge", "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            ip("link", "add", f"v{name}", "type", "veth", "peer", "name", f"p{name}")
            ip("link", "set", f"v{name}", "netns", name)
            ip("link", "set", f"p{name}", "netns", middle)
            ip("-n", name, "addr", "add", f"10.77.0.{10 + number}/24", "dev", f"v{name}")
            ip("-n", name, "link", "set", f"v{name}", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", middle, "link", "set", f"p{name}", "master", "bridge")
            ip("-n", middle, "link", "set", f"p{name}", "up")
        yield names
    finally:
        for name in (*names, middle):
            subprocess.run(["ip", "netns", "del", name], check=False)


def drop(namespace: str, what: str) -> None:
    """Let the firewall of a host drop packets: `what` is an nft expression, empty for all."""
    chains = "".join(
        f"chain {hook} {{\n type filter hook {hook} priority 0;\n {what} drop\n }}\n"
        for hook in ("input", "output")
    )
    rules = f"table ip bad {{\n{chains}}}\n"
    subprocess.run(inside(namespace, "nft", "-f", "-"), input=rules.encode(), check=True)


def heal(namespace: str) -> None:
    subprocess.run(inside(namespace, "nft", "flush", "ruleset"), check=True)


@dataclass
class Processes:
    """What runs in the namespaces; logs go to files."""

    folder: Path
    names: list[str]
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, key: str, namespace: str, *words: str) -> None:
        with (self.folder / f"{key}.log").open("ab") as log:
            self.running[key] = subprocess.Popen(
                inside(namespace, *words), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def fedaq(self, key: str, namespace: str, *words: str) -> None:
        self.start(key, namespace, sys.executable, "-P", "-m", "fedaq", *words)

    def server(self, *words: str) -> None:
        tls = self.folder / "certs" / "server"
        self.fedaq("server", self.names[0], "server", "--host", SERVER, "--port", str(PORT),
                   "--tls", str(tls), *words)  # fmt: skip

    def clients(self, addresses: dict[int, str]) -> None:
        for number in range(1, CLIENTS + 1):
            tls = self.folder / "certs" / "clients" / f"client-{number}"
            self.fedaq(
                f"client-{number}", self.names[number], "client", "--tls", str(tls), "--server",
                addresses.get(number, f"{SERVER}:{PORT}"), "--partition", f"{number}/{CLIENTS}",
            )  # fmt: skip

    def log(self, key: str) -> str:
        return (self.folder / f"{key}.log").read_text(errors="replace")

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > end:
                raise SystemExit(f"waited too long for {what}: {self.log('server')[-2000:]}")
            time.sleep(0.05)

    def wait(self, key: str) -> int:
        return self.running[key].wait(PATIENCE_S)

    def kill(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


def rounds_in(folder: Path) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(json.loads((folder / "run.json").read_text())["rounds"][-1]["round"])
    return 0


@contextmanager
def federation(names: list[str], folder: Path) -> Iterator[Processes]:
    folder.mkdir()
    clients = [word for n in range(1, CLIENTS + 1) for word in ("--client", f"client-{n}")]
    subprocess.run(
        [sys.executable, "-m", "fedaq", "certs", str(folder / "certs"), "--host", SERVER,
         "--host", f"10.77.0.{10 + CLIENTS}", *clients], check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    processes = Processes(folder, names)
    try:
        yield processes
    finally:
        processes.kill()


def reference(folder: Path, rounds: int) -> bytes:
    out = folder / f"reference-{rounds}"
    subprocess.run(
        [sys.executable, "-m", "fedaq", "run", "--engine", "local", *RUN, "--rounds", str(rounds),
         "--out", str(out)], check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return (out / "model.safetensors").read_bytes()


def _likeness(model: bytes, expected: bytes) -> str:
    return "byte for byte" if model == expected else "another one"


def bad_links(names: list[str], folder: Path, rounds: int, expected: bytes) -> list[Check]:
    drop(names[1], "numgen random mod 100 < 5")
    subprocess.run(
        inside(names[2], "tc", "qdisc", "add", "dev", f"v{names[2]}", "root", "tbf",
               "rate", "1mbit", "burst", "16kb", "latency", "400ms"), check=True,
    )  # fmt: skip
    try:
        with federation(names, folder) as run:
            run.start("relay", names[4], sys.executable, str(HERE / "delay.py"), str(PORT),
                      f"{SERVER}:{PORT}", str(DELAY_S))  # fmt: skip
            began = time.monotonic()
            run.server(*RUN, "--rounds", str(rounds), "--out", str(folder / "run"))
            run.clients({4: f"127.0.0.1:{PORT}"})
            code = run.wait("server")
            seconds = time.monotonic() - began
            model = (folder / "run" / "model.safetensors").read_bytes()
            ends = [run.wait(f"client-{number}") for number in range(1, CLIENTS + 1)]
    finally:
        heal(names[1])
        subprocess.run(
            inside(names[2], "tc", "qdisc", "del", "dev", f"v{names[2]}", "root"), check=False
        )
    return [
        Check("5 % loss, 1 Mbit/s, 200 ms: the run ends",
              f"server {code}, clients {ends}, {seconds:.0f} s", code == 0 and not any(ends)),
        Check("and with the right model", _likeness(model, expected), model == expected),
    ]  # fmt: skip


def partition(names: list[str], folder: Path, rounds: int) -> list[Check]:
    with federation(names, folder) as run:
        run.server(*RUN, "--rounds", str(rounds), "--out", str(folder / "run"),
                   "--set", "network.return_wait_s=3",
                   "--set", "training.local_epochs=30")  # fmt: skip
        run.clients({})
        run.wait_for(lambda: rounds_in(folder / "run") >= 3, "round 3")
        drop(names[1], "")
        at = rounds_in(folder / "run")
        run.wait_for(lambda: rounds_in(folder / "run") >= at + 4, "rounds without a client")
        time.sleep(25)
        heal(names[1])
        healed = time.monotonic()
        before = len(re.findall(r"round \d+/", run.log("client-1")))
        run.wait_for(
            lambda: (
                len(re.findall(r"round \d+/", run.log("client-1"))) > before
                or run.running["server"].poll() is not None
            ),
            "the client to be back",
        )
        back_s = time.monotonic() - healed
        came_back = len(re.findall(r"round \d+/", run.log("client-1"))) > before
        # However slow the machine is, one round follows the other.
        for number in range(rounds_in(folder / "run"), rounds + 1):
            run.wait_for(partial(lambda due: rounds_in(folder / "run") >= due, number), "a round")
        code = run.wait("server")
        records = json.loads((folder / "run" / "run.json").read_text())["rounds"]
    without = sum(record["clients"] < CLIENTS for record in records)
    return [
        Check("partition: rounds go on without the client", f"{without} rounds", without >= 4),
        Check("healed: it takes part again within 10 s", f"{back_s:.1f} s",
              came_back and back_s <= BACK_S),
        Check("the run ends with all", f"code {code}, {records[-1]['clients']} clients",
              code == 0 and records[-1]["clients"] == CLIENTS),
    ]  # fmt: skip


def server_returns(names: list[str], folder: Path, rounds: int, expected: bytes) -> list[Check]:
    with federation(names, folder) as run:
        run.server(*RUN, "--rounds", str(rounds), "--out", str(folder / "run"))
        run.clients({})
        run.wait_for(lambda: rounds_in(folder / "run") >= 3, "round 3")
        run.running["server"].kill()
        run.wait("server")
        time.sleep(20)  # by now clients wait as long as they ever do
        heard = run.log("server").count("listening on")
        run.server("--resume", str(folder / "run"))
        run.wait_for(lambda: run.log("server").count("listening on") > heard, "the server")
        returned, at = time.monotonic(), rounds_in(folder / "run")
        run.wait_for(lambda: rounds_in(folder / "run") > at, "the next round")
        back_s = time.monotonic() - returned
        code = run.wait("server")
        records = json.loads((folder / "run" / "run.json").read_text())["rounds"]
        model = (folder / "run" / "model.safetensors").read_bytes()
    all_there = all(record["clients"] == CLIENTS for record in records)
    return [
        Check("server back: the next round is done, with all, within 10 s",
              f"{back_s:.1f} s", all_there and back_s <= BACK_S),
        Check("the run ends with the same model", f"code {code}, {_likeness(model, expected)}",
              code == 0 and model == expected),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--partition-rounds", type=int, default=150)
    options, say = parser.parse_args(), Console()
    missing = [command for command in ("ip", "nft") if shutil.which(command) is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} is missing: install iproute2 and nftables")
    with tempfile.TemporaryDirectory() as name, hosts() as names:
        folder = Path(name)
        expected = reference(folder, options.rounds)
        found: list[Check] = []
        parts: tuple[Callable[[], list[Check]], ...] = (
            lambda: bad_links(names, folder / "bad", options.rounds, expected),
            lambda: server_returns(names, folder / "back", options.rounds, expected),
            lambda: partition(names, folder / "partition", options.partition_rounds),
        )
        for part in parts:
            found += part()
            for check in found[-3:]:
                say.print(f"{check.what}: {check.found}")
    conclude(found)


if __name__ == "__main__":
    main()
