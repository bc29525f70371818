"""Whole federations in real processes: what a run leaves behind, and that it can be repeated."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedaq import __version__
from fedaq.codec.payload import ZERO, TensorCode
from system.commands import Commands, free_port

CLIENTS = 3
ROUNDS = 3
SETTINGS = ("--task", "digits", "--clients", CLIENTS, "--rounds", ROUNDS, "--seed", 7)
MEASURED = {"seconds", "uplink_wire_bytes", "downlink_wire_bytes"}

# The digits task at a pace of its own: the update of every client and round comes when its
# environment says.
SLOW_TASK = """
import os, time
from dataclasses import replace
from fedaq.tasks import train_classifier
from fedaq.tasks.digits import task as digits

delays = [float(text) for text in os.environ.get("DELAYS", "").split()]

def train(model, data, training, seed):
    loss = train_classifier(model, data, training, seed)
    time.sleep(delays.pop(0))
    return loss

task = replace(digits, train=train)
"""


@pytest.fixture(scope="module")
def first_run(lasting_commands: Commands) -> Path:
    """A run that several tests look at."""
    folder = lasting_commands.folder / "first"
    ended = lasting_commands.run("run", *SETTINGS, "--out", folder)
    assert (ended.code, ended.err) == (0, "")
    return folder


@pytest.fixture(scope="module")
def packed_run(lasting_commands: Commands) -> Path:
    """A run of packed codes and whole models, whose bytes follow from the bits alone."""
    folder = lasting_commands.folder / "packed"
    packed = ("--set", "coding.entropy=false", "--set", "coding.downlink=model")
    ended = lasting_commands.run("run", *SETTINGS, *packed, "--out", folder)
    assert (ended.code, ended.err) == (0, "")
    return folder


def document(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return read


def unmeasured(folder: Path) -> dict[str, Any]:
    """Return run.json without what no two runs share."""
    read = document(folder)
    assert read.pop("id")
    for part in (*read["rounds"], read["summary"]):
        for name in MEASURED:
            assert part.pop(name) > 0
    return read


def test_a_run_leaves_the_documented_result(first_run: Path) -> None:
    run = document(first_run)
    assert run["version"] == 1
    assert run["fedaq"] == __version__
    facts = {name: run[name] for name in ("task", "scheme", "seed", "clients", "parameters")}
    assert facts == {
        "task": "digits", "scheme": "fedaq", "seed": 7, "clients": CLIENTS,
        "parameters": 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    }  # fmt: skip
    assert run["settings"]["rounds"] == ROUNDS
    documented = {
        "round", "test_accuracy", "train_loss", "uplink_bits", "downlink_bits",
        "uplink_payload_bytes", "downlink_payload_bytes", "uplink_wire_bytes",
        "downlink_wire_bytes", "catch_up_payload_bytes", "energy_j", "seconds",
    }  # fmt: skip
    assert [entry["round"] for entry in run["rounds"]] == list(range(1, ROUNDS + 1))
    for entry in run["rounds"]:
        assert documented <= entry.keys()
        assert 0 < entry["test_accuracy"] < 1
        assert 0 < entry["uplink_bits"] <= 16
        # The model that the run begins with is built from the seed, not sent.
        assert (entry["downlink_bits"] == 0) == (entry["round"] == 1)
        assert 0 <= entry["downlink_bits"] <= 16
        assert entry["catch_up_payload_bytes"] == 0
        assert (entry["clients"], entry["left_out"]) == (CLIENTS, 0)


def test_the_bytes_of_a_coded_run_fit_each_other(first_run: Path) -> None:
    """Bits follow from payloads, energy from payloads, and the wire carries a little more."""
    run = document(first_run)
    parameters, tensors = run["parameters"], 6
    longest = TensorCode(16, step=0.1, zero=2**15).header_bytes
    for entry in run["rounds"]:
        for way in ("uplink", "downlink"):
            payload = entry[f"{way}_payload_bytes"]
            headers = payload - CLIENTS * parameters * entry[f"{way}_bits"] / 8
            assert CLIENTS * tensors * ZERO.header_bytes <= headers + 1e-6
            assert headers - 1e-6 <= CLIENTS * tensors * longest
            assert payload < entry[f"{way}_wire_bytes"] < 1.2 * payload + 10_000
        bits = 8 * (entry["uplink_payload_bytes"] + entry["downlink_payload_bytes"])
        assert entry["energy_j"] == pytest.approx(1e-7 * bits)
        # The demo's updates need far less than packed codes of one bit.
        assert entry["uplink_payload_bytes"] < CLIENTS * parameters / 8


def test_the_bytes_of_a_packed_run_fit_each_other(packed_run: Path) -> None:
    """Payloads follow from bits, energy from payloads, and the wire carries a little more."""
    run = document(packed_run)
    parameters, tensors = run["parameters"], 6
    for entry in run["rounds"]:
        assert 1 <= entry["uplink_bits"] <= 16
        assert 1 <= entry["downlink_bits"] <= 16
        for way in ("uplink", "downlink"):
            codes = CLIENTS * parameters * entry[f"{way}_bits"] / 8
            headers = CLIENTS * tensors * 16
            payload = entry[f"{way}_payload_bytes"]
            # Each tensor ends on a byte boundary.
            assert codes + headers <= payload < codes + headers + CLIENTS * tensors
            assert payload < entry[f"{way}_wire_bytes"] < 1.2 * payload + 10_000
        bits = 8 * (entry["uplink_payload_bytes"] + entry["downlink_payload_bytes"])
        assert entry["energy_j"] == pytest.approx(1e-7 * bits)


def test_the_summary_sums_up_the_rounds(first_run: Path) -> None:
    run = document(first_run)
    rounds, summary = run["rounds"], run["summary"]
    assert summary["final_accuracy"] == rounds[-1]["test_accuracy"]
    assert summary["best_accuracy"] == max(entry["test_accuracy"] for entry in rounds)
    for name in ("energy_j", "uplink_payload_bytes", "downlink_payload_bytes",
                 "catch_up_payload_bytes", "uplink_wire_bytes", "downlink_wire_bytes",
                 "seconds"):  # fmt: skip
        assert summary[name] == pytest.approx(math.fsum(entry[name] for entry in rounds))


def test_a_run_leaves_the_model_and_a_picture(first_run: Path) -> None:
    model = load_file(first_run / "model.safetensors")
    assert {name: values.shape for name, values in model.items()} == {
        "0.weight": (128, 64), "0.bias": (128,), "2.weight": (64, 128), "2.bias": (64,),
        "4.weight": (10, 64), "4.bias": (10,),
    }  # fmt: skip
    assert all(values.dtype == np.float32 for values in model.values())
    assert (first_run / "run.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert {path.name for path in first_run.iterdir()} == {
        "ledger.sqlite", "logs", "model.safetensors", "run.json", "run.png"
    }  # fmt: skip


def test_the_same_seed_gives_the_same_run(first_run: Path, commands: Commands) -> None:
    folder = commands.folder / "again"
    assert commands.run("run", *SETTINGS, "--out", folder).code == 0
    assert unmeasured(folder) == unmeasured(first_run)
    assert (folder / "model.safetensors").read_bytes() == (
        first_run / "model.safetensors"
    ).read_bytes()


def test_by_hand_in_any_order_the_same_model(first_run: Path, commands: Commands) -> None:
    """The clients join in another order, and finish in another order in every round."""
    (commands.folder / "slow.py").write_text(SLOW_TASK)
    port = free_port()
    folder = commands.folder / "by-hand"
    server = commands.start(
        "server", "--task", "slow:task", "--clients", CLIENTS, "--rounds", ROUNDS, "--seed", 7,
        "--port", port, "--out", folder,
    )  # fmt: skip
    delays = {3: "0.4 0.0 0.2", 1: "0.2 0.4 0.0", 2: "0.0 0.2 0.4"}
    clients = []
    for number, pauses in delays.items():
        client = commands.start(
            "client", "--task", "slow:task", "--seed", 7, "--server", f"127.0.0.1:{port}",
            "--partition", f"{number}/{CLIENTS}", env={"DELAYS": pauses},
        )  # fmt: skip
        client.wait_for("server 127.0.0.1")
        clients.append(client)
    for running in (server, *clients):
        ended = running.wait()
        assert (ended.code, ended.err) == (0, "")
    assert f"round {ROUNDS}/{ROUNDS}: train loss" in clients[0].out.read_text()
    assert (folder / "model.safetensors").read_bytes() == (
        first_run / "model.safetensors"
    ).read_bytes()
    assert (
        document(folder)["summary"]["final_accuracy"]
        == (document(first_run)["summary"]["final_accuracy"])
    )


def test_another_seed_gives_another_model(first_run: Path, commands: Commands) -> None:
    folder = commands.folder / "other"
    ended = commands.run(
        "run", *SETTINGS[:-1], 8, "--engine", "local", "--out", folder
    )  # fmt: skip
    assert ended.code == 0
    assert (folder / "model.safetensors").read_bytes() != (
        first_run / "model.safetensors"
    ).read_bytes()


def test_inspect_puts_a_run_into_words(first_run: Path, commands: Commands) -> None:
    ended = commands.run("inspect", first_run)
    assert (ended.code, ended.err) == (0, "")
    assert "task digits, scheme fedaq, seed 7, 3 clients, 17,226 parameters" in ended.out
    assert f"{document(first_run)['summary']['final_accuracy']:.4f}" in ended.out
