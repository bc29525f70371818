"""What the demo promises: the accuracy of float32 for a third of the energy of 8 bits."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from system.commands import Commands

DEMO = ("--task", "digits", "--clients", 5, "--rounds", 30, "--seed", 1)


def outcome(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return read


def run(commands: Commands, scheme: str, engine: str) -> dict[str, Any]:
    folder = commands.folder / scheme
    ended = commands.run("run", *DEMO, "--scheme", scheme, "--engine", engine, "--out", folder)
    assert (ended.code, ended.err) == (0, "")
    return outcome(folder)


def check(fedaq: dict[str, Any], fp32: dict[str, Any], fixed: dict[str, Any]) -> None:
    accuracy = fedaq["summary"]["final_accuracy"]
    assert accuracy >= 0.95
    assert accuracy >= fp32["summary"]["final_accuracy"] - 0.01
    assert fedaq["summary"]["energy_j"] <= 0.34 * fixed["summary"]["energy_j"]

    rounds = fedaq["rounds"]
    assert len(rounds) == 30
    first, last = rounds[:10], rounds[-10:]
    uplink, downlink = (
        [mean(entry[name] for entry in part) for part in (first, last)]
        for name in ("uplink_bits", "downlink_bits")
    )
    assert uplink[1] < uplink[0]
    assert downlink[1] >= downlink[0]

    # What it is compared with is what it is called.
    for other, bits in ((fp32, 32), (fixed, 8)):
        for entry in other["rounds"]:
            assert (entry["uplink_bits"], entry["downlink_bits"]) == (bits, bits)


def test_the_demo_keeps_its_promises(commands: Commands) -> None:
    """In processes; what it is compared with runs without, which changes nothing but the time."""
    check(
        run(commands, "fedaq", "processes"),
        run(commands, "fp32", "local"),
        run(commands, "fixed", "local"),
    )


@pytest.mark.slow
def test_all_three_in_processes(commands: Commands) -> None:
    check(*(run(commands, scheme, "processes") for scheme in ("fedaq", "fp32", "fixed")))
