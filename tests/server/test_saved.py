"""Runs that were saved, read again; and files that are no such thing."""

import asyncio
import json
from dataclasses import asdict
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest

from fedaq.errors import UserError
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.saved import read_run
from fedaq_server.run import Run
from server.run_files import write_run
from system.live import settings_of

FACTS = {
    "id": "0123", "finished": True, "fedaq": "0.1.0", "task": "digits", "scheme": "fedaq",
    "seed": 1, "clients": 2, "parameters": 10, "settings": {"rounds": 2, "data": None},
    "shut_out": [{"name": "mallory", "round": 2, "reason": "three refusals"}],
    "versions": {"torch": "2.13.0"},
}  # fmt: skip


def record(number: int, **changes: Any) -> RoundRecord:
    values: dict[str, Any] = {
        "round": number, "test_accuracy": 0.5, "test_loss": 1.0, "train_loss": 1.0,
        "uplink_bits": 2.0, "downlink_bits": 4.0, "uplink_payload_bytes": 100,
        "downlink_payload_bytes": 200, "catch_up_payload_bytes": 0, "uplink_wire_bytes": 300,
        "downlink_wire_bytes": 400, "energy_j": 0.25, "price": 0.0, "clients": 2, "left_out": 0,
        "seconds": 1.0,
    }  # fmt: skip
    return RoundRecord(**{**values, **changes})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    rounds = [record(1), record(2, train_loss=nan, uplink_wire_bytes=None)]
    write_run(tmp_path, FACTS, rounds)
    run = read_run(tmp_path)
    assert run.rounds[0] == rounds[0]
    assert isnan(run.rounds[1].train_loss)
    assert run.rounds[1].uplink_wire_bytes is None
    assert (run.id, run.finished, run.settings["rounds"]) == ("0123", True, 2)
    assert run.shut_out[0].name == "mallory"


def test_a_run_says_what_made_it(tmp_path: Path) -> None:
    run = Run(settings_of(2, rounds=1), Ledger(tmp_path), lambda record: None)
    asyncio.run(federate(run))
    saved = read_run(tmp_path)
    assert saved.id == run.ledger.run_id
    assert list(saved.rounds) == run.records
    assert set(saved.versions) == {"python", "torch", "numpy", "machine"}


def test_a_run_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    old = {name: value for name, value in FACTS.items() if name not in ("id", "versions")}
    write_run(tmp_path, old, [record(1)])
    assert (read_run(tmp_path).id, read_run(tmp_path).versions) == ("", {})


def document(**changes: Any) -> bytes:
    content = {"version": 1, **FACTS, "rounds": [], "summary": {}, **changes}
    return json.dumps(content).encode()


def test_fields_of_a_later_version_are_left_alone(tmp_path: Path) -> None:
    later = {**asdict(record(1)), "watts": 3.0}
    (tmp_path / "run.json").write_bytes(document(rounds=[later], weather="fine"))
    assert read_run(tmp_path).rounds == (record(1),)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "run.json: not the record of a run"),
        (b"[]", "run.json: not the record of a run"),
        (b"\xff{}", "run.json: not the record of a run"),
        (b"[" * 200_000, "run.json: not the record of a run"),
        (document(rounds=7), "run.json: not the record of a run"),
        (document(rounds=[{"round": 1}]), "run.json: not the record of a run"),
        (document(clients="many"), "run.json: not the record of a run: clients: "),
        (document(version=9), "run.json: has version 9; this fedaq reads 1"),
    ],
)
def test_what_is_no_run_is_one_line(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_run(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/{sentence}")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run is in there: run.json: No such file"):
        read_run(tmp_path)
