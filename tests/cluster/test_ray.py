"""Clients that train on a Ray cluster, beside those of one process (`make test-ray`)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

import fedaq
from fedaq.tasks import Task, Training, load_task, train_classifier
from fedaq_lab.running import Engine
from lab.test_population import own_task

ray = pytest.importorskip("ray", reason="Ray is not installed; make test-ray installs it")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """Connect this process to a small cluster and return its address."""
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20,
        configure_logging=False, log_to_driver=False,
    )  # fmt: skip
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def outcome(task: Any, folder: Path, engine: Engine, **options: Any) -> tuple[bytes, list[Any]]:
    options = {"clients": 6, "rounds": 4, "clients_per_round": 3, **options}
    result = fedaq.run(task, engine=engine, out=folder / engine, progress=False, **options)
    told = [(each.train_loss, each.uplink_payload_bytes) for each in result.rounds]
    return (folder / engine / "model.safetensors").read_bytes(), told


@pytest.mark.parametrize(
    "options",
    [{}, {"budget_j": 0.05}, {"scheme": "fp32"}, {"partition": {"kind": "dirichlet"}}],
    ids=str,
)
@pytest.mark.parametrize("task", ["digits", own_task()], ids=["plain", "what clients keep"])
def test_the_model_is_that_of_the_local_engine(
    task: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    local, on_ray = (outcome(task, tmp_path, engine, **options) for engine in ("local", "ray"))
    assert on_ray == local


def workers() -> list[psutil.Process]:
    """Return the processes of the cluster that train."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if each.name() in ("ray::carry_out", "ray::IDLE")]


def test_workers_that_are_killed_change_nothing(tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(record: Any) -> None:
        for each in workers():
            each.kill()
            killed.append(each.pid)

    options: dict[str, Any] = {"clients": 6, "rounds": 5, "progress": False}
    calm = fedaq.run("digits", out=tmp_path / "calm", **options)
    hunted = fedaq.run("digits", out=tmp_path / "hunted", engine="ray", on_round=kill, **options)
    assert len(killed) >= 2
    assert hunted.final == calm.final
    assert len({
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("calm", "hunted")
    }) == 1  # fmt: skip


def dies(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    if seed % 2:
        os._exit(1)
    return train_classifier(model, data, training, seed)


def fails(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    raise ValueError("no such thing")


def spoils(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    return 1.0


def with_training(train: Any) -> Task:
    return replace(load_task("digits", None), train=train)


def test_training_whose_worker_dies_every_time_ends_the_run() -> None:
    with pytest.raises(fedaq.FedaqError, match=r"round 1: .*its Ray worker died, 6 times"):
        fedaq.run(with_training(dies), clients=4, rounds=2, engine="ray", progress=False)


def test_an_error_in_a_worker_is_told_as_the_local_engine_tells_it() -> None:
    said = []
    for engine in ("local", "ray"):
        with pytest.raises(fedaq.UserError) as caught:
            fedaq.run(with_training(fails), clients=2, rounds=1, engine=engine, progress=False)
        said.append(str(caught.value))
    assert "training failed: ValueError: no such thing" in said[0]
    assert said[0] == said[1]


def test_an_update_that_is_not_finite_is_left_out() -> None:
    run = fedaq.run(with_training(spoils), clients=2, rounds=1, engine="ray", progress=False)
    assert [record.clients for record in run.rounds] == [0]


def test_what_no_node_has_is_refused_at_once() -> None:
    with pytest.raises(fedaq.UserError, match="takes 64 CPU, which no node"):
        fedaq.run("digits", clients=2, rounds=1, engine="ray", threads=64, progress=False)


def fedaq_command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "fedaq", *words]


def test_a_sweep_that_was_stopped_is_resumed_on_the_cluster(cluster: str, tmp_path: Path) -> None:
    command = fedaq_command(
        "compare", "--scheme", "fp32", "--scheme", "fedaq", "--seeds", "1", "--clients", "4",
        "--rounds", "3", "--target", "0.1", "--engine", "ray", "--ray-address", cluster,
        "--out", str(tmp_path / "sweep"),
    )  # fmt: skip
    first = tmp_path / "sweep" / "fp32" / "seed-1" / "run.png"
    stopped = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not first.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        os.killpg(stopped.pid, signal.SIGINT)
    assert stopped.wait(60) != 0
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 2 runs were done before" in done.stdout
    assert (tmp_path / "sweep" / "compare.json").exists()


def test_a_raylet_that_dies_ends_the_run_with_one_line(tmp_path: Path) -> None:
    """Ray's process of this machine: without it, Ray waits, and then exits with its own dump."""
    command = fedaq_command(
        "run", "--engine", "ray", "--task", "digits", "--clients", "4", "--rounds", "10000",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    log, deadline = tmp_path / "log", time.monotonic() + 120
    with log.open("wb") as file:
        run = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while "round 2/" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        raylets = [each for each in psutil.Process(run.pid).children() if each.name() == "raylet"]
        for each in raylets:
            each.kill()
        assert run.wait(60) == 1
    finally:
        run.kill()
    # Where Ray has ended the run from within, another process says why.
    while "has died" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    said = log.read_text()
    assert f"(raylet, {raylets[0].pid}) has died" in said.splitlines()[-1]
    assert "state-dump" not in said


def test_an_address_at_which_nobody_is_is_told_of(tmp_path: Path) -> None:
    command = fedaq_command(
        "run", "--engine", "ray", "--ray-address", "127.0.0.1:1", "--out", str(tmp_path / "run")
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 2
    assert "--ray-address 127.0.0.1:1: cannot be reached: " in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
