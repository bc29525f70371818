"""`fedaq.run` and what it returns, in the programs that people write."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import fedaq
from fedaq.settings import FixedSettings, Settings
from fedaq.settings.options import Options
from fedaq.tasks import load_task
from fedaq_server.schemes.fixed import fixed
from system.commands import Commands

SMALL: Any = {"rounds": 2, "clients": 2}
PATIENCE_S = 90.0
ENGINES = ["local", pytest.param("processes", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def small() -> fedaq.Result:
    return fedaq.run("digits", **SMALL)


def weights_of(result: fedaq.Result) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in result.state_dict().values())


def facts_of(result: fedaq.Result) -> list[dict[str, Any]]:
    """All of the rounds but how long they took, and what gRPC added."""
    told = {"seconds": 0.0, "uplink_wire_bytes": None, "downlink_wire_bytes": None}
    return [{**vars(record), **told} for record in result.rounds]


def test_python_the_command_line_and_processes_give_the_same_bytes(
    small: fedaq.Result, tmp_path: Path, commands: Commands
) -> None:
    flags = ["--task=digits", "--rounds=2", "--clients=2"]
    assert commands.run("run", *flags, "--engine=local", "--out=command").code == 0
    seen: list[int] = []
    apart = fedaq.run(
        "digits",
        **SMALL,
        engine="processes",
        out=tmp_path / "processes",
        on_round=lambda record: seen.append(record.round),
    )
    for other in (fedaq.load(commands.folder / "command"), apart):
        assert weights_of(other) == weights_of(small)
        assert facts_of(other) == facts_of(small)
    assert seen == [1, 2]
    assert apart.folder == tmp_path / "processes"
    assert all(record.uplink_wire_bytes for record in apart.rounds)


def in_a_script() -> fedaq.Result:
    return fedaq.run("digits", **SMALL)


def on_a_running_loop() -> fedaq.Result:
    async def main() -> fedaq.Result:
        return fedaq.run("digits", **SMALL)  # as in a cell of a notebook

    return asyncio.run(main())


def awaited() -> fedaq.Result:
    async def main() -> fedaq.Result:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        heart = asyncio.create_task(beat())
        result = await fedaq.arun("digits", **SMALL)
        heart.cancel()
        assert beats > 1  # the loop had time for others
        return result

    return asyncio.run(main())


def in_a_thread() -> fedaq.Result:
    found: list[fedaq.Result] = []
    thread = threading.Thread(target=lambda: found.append(fedaq.run("digits", **SMALL)))
    thread.start()
    thread.join(PATIENCE_S)
    return found[0]


def two_at_a_time() -> fedaq.Result:
    async def main() -> fedaq.Result:
        one, other = await asyncio.gather(
            fedaq.arun("digits", **SMALL), fedaq.arun("digits", **SMALL, seed=2)
        )
        assert weights_of(one) != weights_of(other)
        return one

    return asyncio.run(main())


@pytest.mark.parametrize(
    "way", [in_a_script, on_a_running_loop, awaited, in_a_thread, two_at_a_time]
)
def test_it_works_wherever_a_program_calls_it(
    way: Callable[[], fedaq.Result], small: fedaq.Result
) -> None:
    assert weights_of(way()) == weights_of(small)


def test_nothing_of_the_program_is_changed() -> None:
    def state() -> list[Any]:
        return [
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            list(logging.getLogger().handlers),
            [list(logging.getLogger(name).handlers) for name in ("fedaq", "fedaq_server")],
            threading.active_count(),
        ]

    async def main() -> None:
        await asyncio.to_thread(int)
        loop: Any = asyncio.get_running_loop()
        before = loop._default_executor
        torch.manual_seed(7)
        torch.set_num_threads(2)
        found = state()
        result = await fedaq.arun("digits", **SMALL, threads=1)
        assert result.model.training is False
        assert state() == found
        assert loop._default_executor is before

    threads = torch.get_num_threads()
    try:
        asyncio.run(main())
    finally:
        torch.set_num_threads(threads)


def test_tasks_and_schemes_need_no_name(small: fedaq.Result) -> None:
    task = load_task("digits", None)
    assert weights_of(fedaq.run(task, **SMALL)) == weights_of(small)
    assert weights_of(fedaq.run(lambda data: task, **SMALL)) == weights_of(small)
    own = fedaq.run(task, **SMALL, scheme=fixed, fixed=FixedSettings(uplink_bits=3))
    same = fedaq.run(task, **SMALL, scheme="fixed", fixed={"uplink_bits": 3})
    assert weights_of(own) == weights_of(same)
    assert own.record.scheme == "fedaq_server.schemes.fixed:fixed"


def test_a_budget_has_a_short_name() -> None:
    result = fedaq.run("digits", clients=2, rounds=3, budget_j=0.02)
    assert result.settings["energy"]["budget_j"] == 0.02
    assert 0 < result.energy_j <= 0.02


def test_mistakes_are_told_by_the_names_of_the_arguments(tmp_path: Path) -> None:
    def refused(match: str, task: Any = "digits", **options: Any) -> None:
        with pytest.raises(fedaq.UserError, match=match):
            fedaq.run(task, **options)

    refused("^rounds=0: rounds: it should be greater", rounds=0)
    refused("^rouns=3: rouns is not a setting; did you mean rounds", rouns=3)
    refused("^fixed.up=3: fixed.up is not a setting", fixed={"up": 3})
    refused("engine='steam': it is local, processes or ray", engine="steam")
    refused("--ray-address here: the engine is local", ray_address="here")
    refused("task 'digit' is unknown", task="digit")
    refused("scheme 'nix' is unknown", scheme="nix")
    refused("is a int, not a fedaq.tasks.Task", task=lambda data: 3)
    refused("cannot be given a task", task=load_task("digits", None), engine="processes")
    refused("cannot be given a scheme", scheme=lambda settings: None, engine="processes")
    refused("digits: training failed: ZeroDivisionError", task=failing())
    (tmp_path / "run.json").write_text("{}")
    refused("a run is in there already", out=tmp_path)


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fedaq_lab.ray_engine", raising=False)
    with pytest.raises(fedaq.UserError, match=r"pip install 'fedaq\[ray\]'"):
        fedaq.run("digits", engine="ray")


def failing() -> fedaq.Task:
    def train(*arguments: Any) -> float:
        return 1 / 0

    return replace(load_task("digits", None), train=train)


def test_an_error_of_a_callback_ends_the_run() -> None:
    seen: list[int] = []

    def on_round(record: Any) -> None:
        seen.append(record.round)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fedaq.run("digits", clients=2, rounds=1000, on_round=on_round)
    assert seen == [1]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cancelled_run_ends(engine: Any, tmp_path: Path) -> None:
    async def main() -> None:
        begun = asyncio.Event()
        running = asyncio.create_task(
            fedaq.arun(
                "digits",
                clients=2,
                rounds=100_000,
                engine=engine,
                out=tmp_path / "run",
                on_round=lambda record: begun.set(),
            )
        )
        async with asyncio.timeout(PATIENCE_S):
            await begun.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(main())
    assert not psutil.Process().children()
    part = fedaq.load(tmp_path / "run")
    assert part.rounds
    with pytest.raises(fedaq.UserError, match="not over"):
        part.state_dict()


# A shell starts what it runs in the background with interrupts ignored.
INTERRUPTED = """
import fedaq, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    fedaq.run("digits", clients=2, rounds=100_000, engine=sys.argv[1],
              on_round=lambda record: print(record.round, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupt_ends_it_cleanly(engine: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, engine],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "1\n"
        children = psutil.Process(program.pid).children(recursive=True)
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=PATIENCE_S)
    assert out.endswith("interrupted\n")
    assert err == ""
    assert program.returncode == 0
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive


def test_a_run_without_a_folder_leaves_none(
    small: fedaq.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert weights_of(fedaq.run("digits", **SMALL)) == weights_of(small)
    assert list(tmp_path.iterdir()) == []


def test_a_result_says_what_the_run_came_to(small: fedaq.Result) -> None:
    assert small.energy_j == pytest.approx(sum(record.energy_j for record in small.rounds))
    assert small.uplink_bytes == sum(record.uplink_payload_bytes for record in small.rounds)
    assert small.downlink_bytes == sum(record.downlink_payload_bytes for record in small.rounds)
    assert small.final == small.rounds[-1].test_accuracy
    assert small.folder is None
    assert repr(small).startswith("<digits, scheme fedaq, seed 1: accuracy 0.")
    assert "after 2 rounds" in repr(small)
    shown = small._repr_html_()
    assert "final accuracy" in shown
    assert "<svg" in shown
    assert len(small.plot().axes) == 2


def test_the_history_is_a_table() -> None:
    pytest.importorskip("pandas")
    history = fedaq.run("regression", **SMALL).history
    assert list(history.index) == [1, 2]
    assert {"energy_j", "test_loss", "test_r2"} <= set(history.columns)
    assert history["test_r2"].notna().all()
    assert "test_metrics" not in history.columns


def test_schemes_and_runs_are_compared(small: fedaq.Result, tmp_path: Path) -> None:
    slower = fedaq.run("digits", **SMALL, training={"learning_rate": 0.01})
    found = fedaq.compare(
        ["fixed:fixed.uplink_bits=2,fixed.downlink_bits=8", small, slower],
        task="digits",
        seeds=[1, 2],
        out=tmp_path,
        **SMALL,
    )
    line, same, other = found.runs
    assert line == "fixed:fixed.uplink_bits=2,fixed.downlink_bits=8"
    assert (same, other) == ("fedaq", "fedaq:training.learning_rate=0.01")
    assert [result.record.seed for result in found.runs[line]] == [1, 2]
    assert found.target == min(r.summary["best_metric"] for rs in found.runs.values() for r in rs)
    folder = tmp_path / "fixed_fixed.uplink_bits=2_fixed.downlink_bits=8" / "seed-2"
    assert json.loads((folder / "run.json").read_text())["seed"] == 2
    assert "fixed 2 up 8 down" in repr(found)
    assert "<svg" in found._repr_html_()
    for picture in ("metric", "bits", "energy"):
        assert found.plot(picture).axes
    pytest.importorskip("pandas")
    assert set(found.table.index) == set(found.runs)
    assert found.table.loc[same, "energy_j"] == pytest.approx(small.energy_j)


def test_a_comparison_needs_something_to_compare(small: fedaq.Result) -> None:
    with pytest.raises(fedaq.UserError, match="nothing to compare"):
        fedaq.compare([])
    with pytest.raises(fedaq.UserError, match="which task"):
        fedaq.compare(["fedaq", small])
    with pytest.raises(fedaq.UserError, match="different metrics: accuracy, r2"):
        fedaq.compare([small, fedaq.run("regression", **SMALL)])


def test_options_are_the_settings() -> None:
    own = set(Options.__annotations__) - {"budget", "device_budget", "tariff", "budget_j"}
    assert own == set(Settings.model_fields) - {"task", "target_accuracy", "client"}


@pytest.mark.parametrize(
    ("program", "never"),
    [
        ("import fedaq", ("torch", "numpy", "pydantic", "rich", "grpc")),
        ("import fedaq; fedaq.run('digits', rounds=1, clients=1)",
         ("pandas", "matplotlib", "IPython", "ipywidgets", "flwr", "ray")),
    ],
)  # fmt: skip
def test_what_is_not_used_is_not_imported(program: str, never: tuple[str, ...]) -> None:
    asks = f"{program}; import sys; print([name for name in {never} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


@pytest.fixture
def a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package that brings a task and a scheme."""
    (tmp_path / "brought.py").write_text(
        "from dataclasses import replace\n"
        "from fedaq.tasks import load_task\n"
        "from fedaq_server.schemes.fixed import fixed as scheme\n"
        "task = replace(load_task('digits', None), name='numbers')\n"
    )
    info = tmp_path / "brought-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fedaq.tasks]\nnumbers = brought:task\n[fedaq.schemes]\nplain = brought:scheme\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield str(tmp_path)
    sys.modules.pop("brought", None)


def test_packages_bring_tasks_and_schemes_by_name(a_package: str) -> None:
    result = fedaq.run("numbers", scheme="plain", **SMALL)
    assert (result.record.task, result.record.scheme) == ("numbers", "plain")
    with pytest.raises(fedaq.UserError, match="packages here bring: numbers; your own"):
        fedaq.run("number")


def test_the_progress_is_shown_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    fedaq.run("digits", **SMALL)
    assert capsys.readouterr().out == ""


def test_the_page_of_a_run_can_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    fedaq.run("digits", **SMALL, network={"dashboard_port": 0}, progress=True)
    out = capsys.readouterr().out
    assert "watch it: http://127.0.0.1:" in out
    assert "round 2/2" in out


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        fedaq.runn  # noqa: B018
    assert {"run", "arun", "compare", "load"} <= set(dir(fedaq))
