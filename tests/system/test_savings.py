"""What the demo promises: the accuracy of float32 for a twelfth of the energy of 8 bits."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from system.commands import Commands

DEMO = ("--task", "digits", "--clients", 5, "--rounds", 30, "--seed", 1)
PACKED = ("--set", "coding.entropy=false", "--set", "coding.downlink=model")


def outcome(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return read


def run(commands: Commands, scheme: str, engine: str, *more: str) -> dict[str, Any]:
    folder = commands.folder / ("packed" if more else scheme)
    ended = commands.run(
        "run", *DEMO, "--scheme", scheme, "--engine", engine, "--out", folder, *more
    )
    assert (ended.code, ended.err) == (0, "")
    return outcome(folder)


def check(
    fedaq: dict[str, Any], packed: dict[str, Any], fp32: dict[str, Any], fixed: dict[str, Any]
) -> None:
    for mine, share in ((fedaq, 0.08), (packed, 0.34)):
        accuracy = mine["summary"]["final_accuracy"]
        assert accuracy >= 0.95
        assert accuracy >= fp32["summary"]["final_accuracy"] - 0.01
        assert mine["summary"]["energy_j"] <= share * fixed["summary"]["energy_j"]
        assert len(mine["rounds"]) == 30

    # Weights grow, and updates shrink, and differences with them.
    uplink, downlink = early_and_late(packed)
    assert uplink[1] < uplink[0]
    assert downlink[1] >= downlink[0]
    uplink, downlink = early_and_late(fedaq)
    assert uplink[1] < uplink[0]
    assert downlink[1] < downlink[0]

    # What it is compared with is what it is called.
    for other, bits in ((fp32, 32), (fixed, 8)):
        for entry in other["rounds"]:
            assert (entry["uplink_bits"], entry["downlink_bits"]) == (bits, bits)


def early_and_late(ran: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return the uplink bits of the first and the last ten rounds, and the downlink bits."""
    parts = ran["rounds"][:10], ran["rounds"][-10:]
    uplink, downlink = (
        [mean(entry[name] for entry in part) for part in parts]
        for name in ("uplink_bits", "downlink_bits")
    )
    return uplink, downlink


def test_the_demo_keeps_its_promises(commands: Commands) -> None:
    """Each in one process, which changes nothing but the time."""
    check(
        run(commands, "fedaq", "local"),
        run(commands, "fedaq", "local", *PACKED),
        run(commands, "fp32", "local"),
        run(commands, "fixed", "local"),
    )


@pytest.mark.slow
def test_all_of_them_in_processes(commands: Commands) -> None:
    choices = (("fedaq",), ("fedaq", *PACKED), ("fp32",), ("fixed",))
    check(*(run(commands, scheme, "processes", *more) for scheme, *more in choices))
