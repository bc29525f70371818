"""A SuperLink and its SuperNodes as processes, on which Flower's command runs apps."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
READY_S, RUN_S = 60, 400


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Deployment:
    """Processes of Flower on this machine, and a folder for all that they write."""

    folder: Path
    port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        path = os.pathsep.join([str(BIN), os.environ["PATH"]])
        own = {"FLWR_HOME": str(self.folder / "home"), "FLWR_TELEMETRY_ENABLED": "0", "PATH": path}
        return dict(os.environ) | own | {"OMP_NUM_THREADS": "1"}

    def start(self, name: str, *arguments: object) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [str(BIN / str(arguments[0])), *map(str, arguments[1:])],
            stdout=log, stderr=log, env=self.env, cwd=self.folder, start_new_session=True,
        )  # fmt: skip

    def start_link(self) -> None:
        self.port = free_port()
        self.start(
            "link", "flower-superlink", "--insecure", "--port", self.port,
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        home = self.folder / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n[superlink.here]\n'
            f'address = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        self.wait_for(self.port)

    def start_node(self, number: int, nodes: int) -> None:
        port = free_port()
        self.start(
            f"node-{number}", "flower-supernode", "--insecure", "--port", port,
            "--superlink", f"127.0.0.1:{self.port}",
            "--node-config", f"partition-id={number} num-partitions={nodes}",
        )  # fmt: skip

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sent)
                process.wait(10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def run(self, app: Path, **config: object) -> dict[str, Any]:
        """Run an app to its end; return what `flwr list` says of it."""
        given = " ".join(f"{name.replace('_', '-')}={value}" for name, value in config.items())
        started = self._flwr("run", str(app), "here", "--run-config", given)
        run_id = str(started["run-id"])
        end = time.monotonic() + RUN_S
        while time.monotonic() < end:
            [run] = self._flwr("list", "here", "--run-id", run_id)["runs"]
            if run["status"].startswith("finished"):
                return dict(run)
            time.sleep(1)
        raise TimeoutError(self.logs())

    def wait_for(self, port: int) -> None:
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.2)
        raise TimeoutError(self.logs())

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()}" for path in self.folder.glob("*.log")
        )

    def _flwr(self, *arguments: str) -> Any:
        ended = subprocess.run(
            [str(BIN / "flwr"), *arguments, "--format", "json"],
            env=self.env, cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            return json.loads(ended.stdout)
        except ValueError:
            raise AssertionError(ended.stdout + ended.stderr + self.logs()) from None


@contextmanager
def deployed(folder: Path, nodes: int) -> Iterator[Deployment]:
    deployment = Deployment(folder)
    try:
        deployment.start_link()
        for number in range(nodes):
            deployment.start_node(number, nodes)
        yield deployment
    finally:
        for name in list(deployment.processes):
            deployment.stop(name)
