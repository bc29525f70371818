"""A task may start processes of its own, in training and in testing, over real sockets."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from system.commands import Commands, free_port
from system.test_stopping import LONG, stopped

WAYS = ("fork", "spawn", "forkserver")
# gRPC's own handlers at a fork ended 4 of 4 runs of so many rounds.
ROUNDS = 15


@pytest.fixture
def with_tasks(commands: Commands) -> Commands:
    """`fedaq` in a folder with tasks that start processes."""
    source = Path(__file__).with_name("forking_task.py").read_text()
    (commands.folder / "forking_task.py").write_text(source)
    return commands


def accuracies(folder: Path) -> list[float]:
    return [
        done["test_accuracy"] for done in json.loads((folder / "run.json").read_text())["rounds"]
    ]


def test_a_run_whose_work_processes_are_forked(with_tasks: Commands) -> None:
    """Also where the environment asks gRPC for its handlers; they bring the same data as none."""
    options = ("--clients", 2, "--rounds", ROUNDS)
    env = {"HOW": "fork", "GRPC_ENABLE_FORK_SUPPORT": "1"}
    forked = with_tasks.run("run", "--task", "forking_task:task", *options, "--out", "new", env=env)
    assert (forked.code, forked.err) == (0, "")
    assert with_tasks.run("run", "--engine", "local", *options, "--out", "plain").code == 0
    folder = with_tasks.folder
    assert accuracies(folder / "new") == accuracies(folder / "plain")
    logs = [log.read_text() for log in (folder / "new" / "logs").glob("client-*.log")]
    assert len(logs) == 2
    assert all("trying again" not in log for log in logs)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_a_run_whose_work_processes_are_started_otherwise(how: str, with_tasks: Commands) -> None:
    ended = with_tasks.run(
        "run", "--task", "forking_task:task", "--clients", 1, "--rounds", 2, env={"HOW": how}
    )
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.slow
def test_a_run_in_one_process(with_tasks: Commands) -> None:
    ended = with_tasks.run(
        "run", "--engine", "local", "--task", "forking_task:task", "--clients", 2, "--rounds", 2
    )
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS)
def test_the_checkup_of_a_task(how: str, with_tasks: Commands) -> None:
    ended = with_tasks.run("check-task", "forking_task:task", env={"HOW": how})
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "ready"


def test_a_signal_to_a_forked_process_is_not_the_clients(with_tasks: Commands) -> None:
    """A pool ends its processes with SIGTERM; they share what wakes the client's event loop."""
    port = free_port()
    server = with_tasks.start("server", "--port", port, "--clients", 1, "--rounds", 5)
    client = with_tasks.start(
        "client", "--server", f"127.0.0.1:{port}", "--task", "forking_task:pool"
    )
    ended = client.wait()
    assert (ended.code, ended.err) == (0, "")
    assert "the run is over after 5 rounds" in ended.out
    assert server.wait().code == 0


def test_a_run_that_is_stopped_leaves_no_work_processes(with_tasks: Commands) -> None:
    run = with_tasks.start("run", "--task", "forking_task:task", *LONG)
    run.wait_for("round 2/")
    stopped(run, signal.SIGTERM)


EARLY_SIGNAL = """
import asyncio, os, signal
# Runs in the child before what fedaq does there.
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
from fedaq.process import forks, stopping
forks.allow()

async def main():
    child = os.fork()
    if not child:
        os._exit(3)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    await asyncio.sleep(0.1)
    print(os.waitstatus_to_exitcode(status))

stopping.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_signal_to_a_process_that_has_just_been_forked_is_its_own() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", EARLY_SIGNAL],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{-signal.SIGTERM}\n", "")
