"""How `fedaq run` looks after its processes, with small processes in their place."""

import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from fedaq.errors import FedaqError, UserError
from fedaq.process import stopping
from fedaq.settings import load_settings
from fedaq_lab import processes
from fedaq_server.records.run_folder import results_folder

PATIENCE_S = 30.0
FOREVER = "import time; time.sleep(600)"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('here', flush=True); " + FOREVER


@pytest.fixture
def children() -> Iterator[processes._Children]:
    started = processes._Children()
    yield started
    started.end()


def start(
    children: processes._Children, program: str, log: Path, *, terminal: bool = False
) -> processes._Child:
    children.start([sys.executable, "-c", program], log, terminal=terminal)
    return children.all[-1]


def test_a_child_that_ends_well_has_not_failed(
    children: processes._Children, tmp_path: Path
) -> None:
    child = start(children, "print('fine')", tmp_path / "log")
    assert child.process.wait(PATIENCE_S) == 0
    assert not child.failed()
    assert (tmp_path / "log").read_text() == "fine\n"


@pytest.mark.parametrize(
    ("program", "kind", "sentence"),
    [
        ("import sys; print('words'); sys.exit('fedaq: the disk is gone')", FedaqError,
         "the disk is gone"),
        ("import sys; sys.stderr.write('fedaq: write it as 2/5\\n\\n'); sys.exit(2)", UserError,
         "write it as 2/5"),
        ("import os; os._exit(3)", FedaqError, "client-7 ended with code 3"),
        ("import os; os.kill(os.getpid(), 9)", FedaqError, "client-7 ended with code -9"),
    ],
)  # fmt: skip
def test_what_a_child_said_last_becomes_the_error(
    program: str,
    kind: type[FedaqError],
    sentence: str,
    children: processes._Children,
    tmp_path: Path,
) -> None:
    child = start(children, program, tmp_path / "client-7.log")
    child.process.wait(PATIENCE_S)
    assert child.failed()
    failure = child.failure()
    assert (type(failure), str(failure)) == (kind, sentence)


def test_with_a_terminal_only_errors_go_to_the_log(
    children: processes._Children, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = "import sys; print('progress'); sys.exit('mistake')"
    start(children, program, tmp_path / "log", terminal=True).process.wait(PATIENCE_S)
    assert capfd.readouterr() == ("progress\n", "")
    assert (tmp_path / "log").read_text() == "mistake\n"


def test_who_does_not_end_when_asked_is_killed(
    children: processes._Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_STOP_S", 0.2)
    stubborn = start(children, STUBBORN, tmp_path / "stubborn")
    meek = start(children, FOREVER, tmp_path / "meek")
    wait_for(tmp_path / "stubborn", "here")
    children.end()
    assert stubborn.process.returncode == -signal.SIGKILL
    assert meek.process.returncode == -signal.SIGTERM


def test_a_signal_while_processes_start_leaves_none_behind(tmp_path: Path) -> None:
    """It arrives at another moment of a start in every attempt."""
    handlers = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, stop),
        signal.SIGALRM: signal.signal(signal.SIGALRM, terminate),
    }
    try:
        for attempt in range(20):
            children = processes._Children()
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.0003 + 0.0002 * attempt)
                for number in range(1000):
                    start(children, FOREVER, tmp_path / f"{attempt}-{number}")
            assert children_of_this_process() == {child.process.pid for child in children.all}
            children.end()
            assert children_of_this_process() == set()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def terminate(number: int, frame: object) -> None:
    signal.raise_signal(signal.SIGTERM)


def children_of_this_process() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def wait_for(file: Path, text: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while text not in file.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- Waiting for the end of a run ---------------------------------------------


def waited(children: processes._Children, folder: Path) -> None:
    processes._wait(children.all[0], children.all[1:], folder)


def test_the_run_ends_with_the_server(children: processes._Children, tmp_path: Path) -> None:
    start(children, "", tmp_path / "server")
    start(children, "", tmp_path / "client-1")
    waited(children, tmp_path)
    assert all(child.process.returncode == 0 for child in children.all)


def test_the_failure_of_the_server_is_that_of_the_run(
    children: processes._Children, tmp_path: Path
) -> None:
    start(children, "import sys; sys.exit('fedaq: no memory left')", tmp_path / "server")
    start(children, FOREVER, tmp_path / "client-1")
    with pytest.raises(FedaqError, match=r"^no memory left$"):
        waited(children, tmp_path)


@pytest.mark.parametrize(
    ("begun", "failing", "ends"),
    [(False, 1, True), (True, 1, False), (True, 2, True)],
    ids=["one before the first round", "one later on", "all later on"],
)
def test_the_failure_of_clients(
    begun: bool, failing: int, ends: bool, children: processes._Children, tmp_path: Path
) -> None:
    """Without all clients the first round would wait for minutes; later ones go on."""
    if begun:
        (tmp_path / "run.json").touch()
    start(children, "import time; time.sleep(1)", tmp_path / "server")
    for number in (1, 2):
        program = "import sys; sys.exit('fedaq: no data')" if number <= failing else ""
        start(children, program, tmp_path / f"client-{number}")
    if ends:
        with pytest.raises(FedaqError, match=r"^no data$"):
            waited(children, tmp_path)
    else:
        waited(children, tmp_path)


# ---- The folder and the port ----------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
def test_a_mistake_leaves_logs_only_of_a_run_that_had_begun(begun: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError), ExitStack() as stack:
        stack.enter_context(results_folder(folder, load_settings(environment={})))
        _, logs = stack.enter_context(processes._processes(folder))
        (logs / "client-1.log").touch()
        if begun:
            (folder / "run.json").touch()
        raise UserError("no such task")
    assert folder.exists() == begun
    assert (folder / "logs" / "client-1.log").exists() == begun


def test_a_failure_that_is_no_mistake_keeps_the_logs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(FedaqError), ExitStack() as stack:
        stack.enter_context(results_folder(folder, load_settings(environment={})))
        _, logs = stack.enter_context(processes._processes(folder))
        (logs / "client-1.log").touch()
        raise FedaqError("the disk is gone")
    assert (folder / "logs" / "client-1.log").exists()


def test_a_port_is_claimed_only_if_nobody_listens_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        busy = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{busy}: .*--port"):
            processes._claim_port(busy)
        free = processes._claim_port(0)
        assert free not in (0, busy)
        assert processes._claim_port(free) == free


def test_the_processes_are_given_what_was_asked_for() -> None:
    line = processes._fedaq(
        "server", {"task": "my.module:it", "rounds": 3, "data": None}, Path("a b.toml"),
        ["fixed.uplink_bits=4", "capture=true"],
    )  # fmt: skip
    assert line == [
        sys.executable, "-P", "-m", "fedaq", "server", "--task", "my.module:it", "--rounds", "3",
        "--config", "a b.toml", "--set", "fixed.uplink_bits=4", "--set", "capture=true",
    ]  # fmt: skip


def test_a_stop_outlasts_that_of_the_children() -> None:
    """Else this process would give up before it has killed who does not end."""
    assert processes._STOP_S < stopping.STOP_GRACE_S
