"""The composed federation for real: built, started, scaled, killed, restarted, checked, cleaned up.

    python tests/containers/run.py

With Docker where it runs; otherwise, as root on Debian, with podman (packages podman, crun,
netavark, aardvark-dns, catatonit, iptables) and Compose v2 (`--compose`), whose images and
containers are kept apart from the machine's own. Where no registry can be reached, a system of
Debian's Python stands in for python:3.11-slim (package debootstrap), and `--wheels` names a folder
with PyTorch's wheel.

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
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))
from checks import Check, conclude
from system.commands import free_port

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.11-slim"
# A run without an end, for what is done within it, and one that ends.
DISTURBED = {"RUN": "disturbed", "ROUNDS": "100000"}
CALM = {"RUN": "calm", "ROUNDS": "30"}
CLIENTS, MORE = 5, 7
# Always the same: what a build keeps depends on the address.
INDEX_PORT = 50077
PATIENCE_S, BUILD_S = 240.0, 3600.0
ACCURACY = 0.9


@dataclass(frozen=True)
class Engine:
    """What runs containers, and how Compose is called for it."""

    name: str
    compose: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def engine(options: argparse.Namespace, folder: Path) -> Iterator[Engine]:
    if succeeds("docker", "info") and succeeds("docker", "compose", "version"):
        yield Engine("Docker", ("docker", "compose"))
        return
    if os.geteuid() != 0 or not all(map(shutil.which, ("podman", "crun", options.compose))):
        raise SystemExit(
            "no Docker with Compose answers; in its place, as root, podman and crun would do, "
            "with Compose v2: --compose PATH"
        )
    with podman(options.storage or folder / "storage", folder) as address:
        environment = {"DOCKER_HOST": address, "DOCKER_BUILDKIT": "0"}
        yield Engine("podman", (options.compose,), environment)


def succeeds(*words: str) -> bool:
    try:
        return not subprocess.run(words, capture_output=True, check=False, timeout=120).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def podman(storage: Path, folder: Path) -> Iterator[str]:
    """Yield the address of a podman of our own, with what it lacks outside systemd made good."""
    (folder / "containers.conf").write_text(
        "[containers]\n"
        # More than the caller itself may have is refused.
        'default_ulimits = ["nofile=4096:4096", "nproc=1024:1024"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n'
        '[network]\nnetwork_backend = "netavark"\n'
    )
    # crun refuses a system with both versions of cgroups: it is shown the first alone.
    start = (
        "umount /sys/fs/cgroup/unified 2>/dev/null; exec podman --root $0/root --runroot $0/run "
        "system service --time 0 unix://$1"
    )
    environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
    socket = folder / "podman.sock"
    address = f"unix://{socket}"
    with (folder / "podman.log").open("wb") as log:
        service = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", start, str(storage),
             str(socket)], env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        over = threading.Event()
        health = threading.Thread(target=check_health, args=(address, over))
        try:
            wait_for(lambda: socket.exists() or service.poll() is not None, "podman")
            if service.poll() is not None:
                raise SystemExit(f"podman: {Path(log.name).read_text()}")
            if not succeeds("podman", "--url", address, "image", "exists", BASE):
                bring_base(address, folder / "base")
            health.start()
            yield address
        finally:
            over.set()
            if health.is_alive():
                health.join()
            service.terminate()
            service.wait()


def check_health(address: str, over: threading.Event) -> None:
    """Do what timers of systemd do elsewhere."""
    while not over.wait(1.0):
        with suppress(subprocess.TimeoutExpired):
            found = subprocess.run(
                ["podman", "--url", address, "ps", "--quiet"],
                capture_output=True, text=True, check=False, timeout=30,
            )  # fmt: skip
            for container in found.stdout.split():
                subprocess.run(
                    ["podman", "--url", address, "healthcheck", "run", container],
                    capture_output=True, check=False, timeout=30,
                )  # fmt: skip


def bring_base(address: str, folder: Path) -> None:
    """Fetch the base image, or make a system that does what the Dockerfiles want of it."""
    if succeeds("podman", "--url", address, "pull", "--quiet", BASE):
        return
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(folder)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for name in ("python", "python3"):
        (folder / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    # What this machine trusts, the builds in it trust as well.
    trusted = Path("etc/ssl/certs/ca-certificates.crt")
    shutil.copy(Path("/") / trusted, folder / trusted)
    (folder / "etc/pip.conf").write_text(f"[global]\ncert = /{trusted}\n")
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ["podman", "--url", address, "import", "--quiet", "-", BASE],
            stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    shutil.rmtree(folder)


class Silent(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *words: object) -> None:
        """Keep it to itself."""


@contextmanager
def index(wheels: Path | None, folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a build that finds torch in a folder, served as an index."""
    if wheels is None:
        yield {}
        return
    (folder / "index").mkdir()
    (folder / "index" / "torch").symlink_to(wheels.resolve())
    handler = partial(Silent, directory=str(folder / "index"))
    with ThreadingHTTPServer(("127.0.0.1", INDEX_PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"TORCH_INDEX_URL": f"http://127.0.0.1:{INDEX_PORT}/"}
        server.shutdown()


def wait_for(holds: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> float:
    """Wait until something holds; return the seconds that it took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)
    return time.monotonic() - began


def override(folder: Path, *, host_network: bool) -> Path:
    """Write what differs from docker-compose.yml: builds that see an index on the loopback."""
    build = {"build": {"network": "host"}} if host_network else {}
    services = dict.fromkeys(("certs", "server", "client"), build)
    file = folder / "override.json"
    file.write_text(json.dumps({"services": services}))
    return file


@dataclass
class Composed:
    """The federation of docker-compose.yml, as a project of its own."""

    engine: Engine
    override: Path
    environment: dict[str, str]
    project: str = f"fedaq-check-{os.getpid()}"

    def __call__(self, *words: str, timeout_s: float = PATIENCE_S, check: bool = True) -> str:
        files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(self.override)]
        done = subprocess.run(
            [*self.engine.compose, "--project-name", self.project, *files, *words],
            env={**os.environ, **self.engine.environment, **self.environment},
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=timeout_s,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"compose {' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout

    def containers(self, service: str) -> list[dict[str, Any]]:
        lines = self("ps", "--all", "--format", "json", service, check=False).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def healthy(self, service: str) -> int:
        return sum(one["Health"] == "healthy" for one in self.containers(service))

    def inside(self, service: str, script: str, number: int = 1, *, check: bool = True) -> str:
        return self("exec", "-T", "--index", str(number), service, "sh", "-c", script, check=check)

    def rounds(self) -> list[dict[str, Any]]:
        text = self.inside("server", f"cat /runs/{DISTURBED['RUN']}/run.json", check=False)
        with suppress(ValueError, KeyError):
            rounds: list[dict[str, Any]] = json.loads(text)["rounds"]
            return rounds
        return []

    def life(self, service: str, number: int) -> str:
        """Return when a container was started; empty if it is not running."""
        return self.inside(service, "stat -c %Y /proc/1", number, check=False)

    def taking_part(self) -> int:
        return self.rounds()[-1]["clients"] if self.rounds() else 0


def hardened(run: Composed, service: str) -> Check:
    """Look from inside whether the limits of docker-compose.yml are in force."""
    found = run.inside(
        service,
        "id -u; sed -n 's/^CapBnd:\t//p;s/^NoNewPrivs:\t//p' /proc/self/status; "
        "touch /opt/x 2>/dev/null && echo writable || echo read-only; "
        "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; true",
    ).split()
    wanted = ["10001", "0" * 16, "1", "read-only", str(512 * 2**20)]
    return Check(f"{service}: user, capabilities, no new ones, root file system, memory",
                 " ".join(found), found == wanted)  # fmt: skip


def peak_mb(run: Composed, service: str) -> float:
    peaks = run.inside(service, "cat /proc/[0-9]*/status")
    return max(int(kib) for kib in re.findall(r"VmHWM:\s+(\d+) kB", peaks)) * 1024 / 1e6


def disturbed(run: Composed) -> Iterator[Check]:
    began = time.monotonic()
    run("build", timeout_s=BUILD_S)
    yield Check("build", f"{time.monotonic() - began:.0f} s", True)

    began = time.monotonic()
    run("up", "--detach", "--no-build", "--scale", f"client={CLIENTS}")
    yield Check("up: the server is healthy, clients are started",
                f"{time.monotonic() - began:.1f} s", run.healthy("server") == 1)  # fmt: skip
    seconds = wait_for(lambda: run.healthy("client") == CLIENTS, "healthy clients")
    yield Check("all clients are healthy", f"{seconds:.1f} s later", True)
    yield hardened(run, "server")
    yield hardened(run, "client")
    yield Check("client: no server's libraries", *without_server(run))

    statuses = page_statuses(run)
    yield Check("the page: without the token, with it", f"{statuses}", statuses == [401, 200])

    wait_for(lambda: run.taking_part() == CLIENTS, "clients in a round")
    began = time.monotonic()
    run("up", "--detach", "--no-build", "--no-recreate", "--scale", f"client={MORE}")
    wait_for(lambda: run.taking_part() == MORE, "more clients")
    yield Check(f"--scale client={MORE}: all take part",
                f"{time.monotonic() - began:.1f} s", True)  # fmt: skip

    began, life = time.monotonic(), run.life("client", 2)
    run.inside("client", "kill -9 -1", 2, check=False)
    wait_for(lambda: run.life("client", 2) not in ("", life), "another life of the client")
    at = len(run.rounds())
    wait_for(lambda: len(run.rounds()) > at and run.taking_part() == MORE, "its return")
    yield Check("a client is killed: it is started again and takes part",
                f"{time.monotonic() - began:.1f} s", True)  # fmt: skip

    before, began = run.rounds(), time.monotonic()
    run("restart", "server")
    wait_for(lambda: len(run.rounds()) > len(before) and run.taking_part() == MORE, "the server")
    rounds = run.rounds()
    kept = rounds[: len(before)] == before
    numbered = [record["round"] for record in rounds] == list(range(1, len(rounds) + 1))
    yield Check("the server is restarted: its rounds are there, and all clients take part",
                f"{time.monotonic() - began:.1f} s, {len(before)} rounds kept",
                kept and numbered)  # fmt: skip
    peaks = peak_mb(run, "server"), peak_mb(run, "client")
    yield Check("peak memory of server and client",
                f"{peaks[0]:.0f} and {peaks[1]:.0f} MB", max(peaks) < 512)  # fmt: skip


def calm(run: Composed) -> Iterator[Check]:
    """The next run, with the same volumes, to its end."""
    began = time.monotonic()
    run("up", "--detach", "--no-build", "--scale", f"client={MORE}")
    wait_for(lambda: ended(run, "server") and ended(run, "client"), "the end", 3 * PATIENCE_S)
    codes = [one["ExitCode"] for name in ("server", "client") for one in run.containers(name)]
    found = f"{codes}, {time.monotonic() - began:.0f} s"
    yield Check("the next run ends, all containers with code 0", found, codes == [0] * (1 + MORE))
    with tempfile.TemporaryDirectory() as name:
        run("cp", f"server:/runs/{CALM['RUN']}", f"{name}/run")
        document = json.loads((Path(name) / "run" / "run.json").read_text())
        rounds, accuracy = len(document["rounds"]), document["summary"]["final_accuracy"]
        yield Check("its rounds", f"{rounds}", str(rounds) == CALM["ROUNDS"])
        yield Check("its final accuracy", f"{accuracy:.4f}", accuracy >= ACCURACY)
        size = (Path(name) / "run" / "model.safetensors").stat().st_size
        yield Check("its model", f"{size} bytes", size > 0)
    said = run("logs", "--no-color", "client")
    parts = set(re.findall(r"(client-\d+): \d+ examples", said))
    yield Check(f"{MORE} identities, a part each", " ".join(sorted(parts)), len(parts) == MORE)


def page_statuses(run: Composed) -> list[int]:
    token = run.inside("server", "cat /certs/server/page.token").strip()
    found = []
    for query in ("", f"?token={token}"):
        try:
            address = f"http://127.0.0.1:{run.environment['PAGE_PORT']}/{query}"
            with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
                found.append(answer.status)
        except urllib.error.HTTPError as error:
            found.append(error.code)
    return found


def without_server(run: Composed) -> tuple[str, bool]:
    names = "cryptography", "grpc_reflection", "matplotlib", "prometheus_client", "safetensors"
    found = run.inside(
        "client", "cd /opt/fedaq/lib/python3.*/site-packages; ls -d " + " ".join(names),
        check=False,
    )  # fmt: skip
    return found.strip() or "none", not found


def ended(run: Composed, service: str) -> bool:
    states = [one["State"] for one in run.containers(service)]
    return bool(states) and set(states) == {"exited"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compose", default="docker-compose", help="Compose v2, for podman")
    parser.add_argument("--wheels", type=Path, help="folder with a wheel of torch")
    parser.add_argument("--storage", type=Path, help="keep podman's images there")
    options, say = parser.parse_args(), Console()
    found: list[Check] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedaq-")))
        chosen = stack.enter_context(engine(options, folder))
        common = {
            "PORT": str(free_port()),
            "PAGE_PORT": str(free_port()),
            **stack.enter_context(index(options.wheels, folder)),
        }
        file = override(folder, host_network=bool(options.wheels))
        first, second = (Composed(chosen, file, {**common, **how}) for how in (DISTURBED, CALM))
        say.print(f"engine: {chosen.name}")
        try:
            for check in chain(disturbed(first), calm(second)):
                found.append(check)
                say.print(f"{check.what}: {check.found}")
        except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
            found.append(Check("it goes on to the end", str(error), False))
            say.print(first("logs", "--no-color", "--tail", "20", check=False), markup=False)
        finally:
            first("down", "--volumes", "--timeout", "20", check=False)
    conclude(found, chosen.name)


if __name__ == "__main__":
    main()
