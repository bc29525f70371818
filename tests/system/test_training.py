"""Training that is more than plain SGD, in real processes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from documents.pages import ROOT, blocks
from system.commands import Commands, free_port

ASKED = {
    "training.optimizer": "adamw",
    "training.learning_rate": 0.003,
    "training.weight_decay": 0.01,
    "training.schedule": "cosine",
    "training.warmup_rounds": 1,
    "training.proximal": 0.01,
    "training.clip_norm": 5.0,
    "training.keep_optimizer": True,
}
STEPS = {"server_optimizer.kind": "fedavgm", "server_optimizer.momentum": 0.3}


def words(settings: dict[str, Any]) -> list[str]:
    return [
        word for name, value in settings.items() for word in ("--set", f"{name}={value}".lower())
    ]


def document(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return read


def test_processes_train_as_the_settings_say_and_as_one_process_does(commands: Commands) -> None:
    common = ["--task", "digits", "--clients", 2, "--rounds", 6, "--threads", 1, "--device", "cpu",
              *words(ASKED | STEPS)]  # fmt: skip
    apart = commands.start("run", *common, "--out", "apart")
    together = commands.start("run", *common, "--engine", "local", "--out", "together")
    plain = commands.start("run", *common[:8], "--engine", "local", "--out", "plain")
    ends = [running.wait() for running in (apart, together, plain)]
    assert [end.code for end in ends] == [0, 0, 0], ends
    models = [
        (commands.folder / name / "model.safetensors").read_bytes()
        for name in ("apart", "together", "plain")
    ]
    assert models[0] == models[1]
    assert models[0] != models[2]
    run = document(commands.folder / "apart")
    for name, value in (ASKED | STEPS).items():
        section, _, inner = name.partition(".")
        assert run["settings"][section][inner] == value
    assert run["rounds"][-1]["test_accuracy"] > 0.85


def test_a_client_that_is_killed_goes_on_with_its_optimizer(commands: Commands) -> None:
    """With fp32 nothing else of it is lost: the model is the one of a run without its death."""
    common = ["--task", "digits", "--clients", 2, "--rounds", 8, "--scheme", "fp32",
              "--set", "network.return_wait_s=60", *words(ASKED)]  # fmt: skip
    calm = commands.start("run", *common, "--engine", "local", "--out", "calm")
    port = free_port()
    server = commands.start("server", *common, "--port", port, "--out", "wild")

    def client(part: str) -> Any:
        return commands.start("client", "--server", f"127.0.0.1:{port}", "--partition", part,
                              "--set", "client.state=states")  # fmt: skip

    first, second = client("1/2"), client("2/2")
    server.wait_for("round 3/")
    first.process.kill()
    first.process.wait()
    first = client("1/2")
    ends = [running.wait() for running in (calm, server, first, second)]
    assert [end.code for end in ends] == [0, 0, 0, 0], ends
    models = [
        (commands.folder / name / "model.safetensors").read_bytes() for name in ("calm", "wild")
    ]
    assert models[0] == models[1]
    assert not list((commands.folder / "states").iterdir())


@pytest.mark.parametrize("attribute", [pytest.param("task", marks=pytest.mark.slow), "going_on"])
def test_the_regression_that_the_guide_shows_learns(attribute: str, commands: Commands) -> None:
    page = ROOT / "docs" / "how-to" / "training.md"
    code = "\n\n".join(text for language, text in blocks(page) if language == "python")
    (commands.folder / "diabetes.py").write_text(code)
    ended = commands.run("run", "--task", f"diabetes:{attribute}", "--clients", 3,
                         "--engine", "local", "--out", "learnt")  # fmt: skip
    assert ended.code == 0, ended
    # A linear model by least squares explains 0.43 of the same test data.
    assert document(commands.folder / "learnt")["rounds"][-1]["test_accuracy"] > 0.37  # R2


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="it is there")
def test_a_device_that_is_not_there_is_one_line(commands: Commands) -> None:
    for command in (("client",), ("run", "--engine", "local"), ("server",)):
        ended = commands.run(*command, "--device", "mps")
        assert ended.code == 2
        assert ended.err.startswith("fedaq: --device mps: torch ")
        assert ended.err.count("\n") == 1
    unknown = commands.run("server", "--device", "tpu")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)
    assert "device: it should be 'auto', 'cpu', 'cuda' or 'mps' (got 'tpu')" in unknown.err
