"""Models as people build them, through the commands and through a whole run."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import odd_models
from fedaq import cli, tasks
from fedaq.errors import UserError
from fedaq.modules.signature import spec_of
from fedaq.tasks import load_task
from fedaq_lab.local import federate
from fedaq_server.records.exporting import export_model, trained_model
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.saved import read_run
from fedaq_server.run import Run
from odd_models import FINE, REFUSED
from system.live import settings_of

Call = Callable[..., tuple[int, str, str]]
COMMANDS = ("check-task {0}", "run --task {0} --engine local", "server --task {0} --port 0",
            "client --task {0}")  # fmt: skip
BEYOND_TORCHS_EXPORTER = ("quantized", "a sparse buffer of integers")


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """`fedaq` in this process, which has its libraries loaded."""
    # What gRPC left behind in an earlier test complains when it goes: let it go now.
    gc.collect()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)

    def called(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedaq", *line.split()])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return code, *capfd.readouterr()

    yield called
    for number, handler in handlers.items():
        signal.signal(number, handler)


def offer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let ``--task odd`` be digits with this model."""
    monkeypatch.setattr(odd_models, "odd", odd_models.task(name), raising=False)
    monkeypatch.setitem(tasks.BUILT_IN, "odd", "odd_models:odd")


@pytest.mark.filterwarnings("ignore")
def test_every_command_refuses_a_model_with_the_same_sentence(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, (make, _) in REFUSED.items():
        with pytest.raises(UserError) as refused:
            spec_of(make())
        sentence = str(refused.value)
        offer(monkeypatch, name)
        for command in COMMANDS:
            code, out, err = call(command.format("odd"))
            if command.startswith("check-task"):
                assert (code, err) == (1, ""), (name, command)
                assert out == f"wrong: {sentence}\n1 thing is wrong\n", (name, command)
            else:
                assert (code, err) == (2, f"fedaq: {sentence}\n"), (name, command)
    assert not list(tmp_path.glob("runs/*")), "something is left of a run that never began"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FINE)
def test_a_model_that_looks_odd_is_trained_kept_and_begun_with(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(monkeypatch, name)
    settings = settings_of(2, rounds=2, task="odd")
    folder, again = tmp_path / "run", tmp_path / "again"
    for path in (folder, again):
        path.mkdir()
    run = Run(settings, Ledger(folder), lambda record: None)
    began = run.federation.model.copy()
    asyncio.run(federate(run))
    assert run.records[-1].clients == 2
    assert not np.array_equal(run.federation.model, began)
    task = load_task("odd", None)
    model: Any = trained_model(task, read_run(folder), folder)
    assert task.evaluate(model, task.test_data(None)).accuracy == pytest.approx(
        run.records[-1].test_accuracy
    )
    if hasattr(model, "second"):
        assert torch.equal(model.second, model.linear.weight)
    if name not in BEYOND_TORCHS_EXPORTER:
        export_model(folder, tmp_path / "model.pt2")
    start = folder / "model.safetensors"
    settings = settings_of(2, rounds=1, task="odd", start_from=start)
    following = Run(settings, Ledger(again), lambda record: None)
    kept = run._tested(run.ledger.rounds_done)
    assert following.federation.model.tobytes() == kept.tobytes()
    asyncio.run(federate(following))
    assert following.records[-1].clients == 2
