"""When run.json is written, and that it is whole when a run ends, stops or goes on."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedaq_lab.local import federate
from fedaq_server.records import run_file
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.run_file import RunFile
from fedaq_server.records.saved import read_run
from fedaq_server.run import Run
from server.test_saved import FACTS, record
from system.live import settings_of


@pytest.mark.parametrize("round_s", [0.01, 1.0, 60.0])
def test_writing_takes_a_small_share_of_the_time_however_many_rounds_there_are(
    round_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock of our own, on which every round takes 20 us to write."""
    now, writing, behind = 0.0, 0.0, 0
    rounds: list[RoundRecord] = []

    def write(folder: Path, facts: Mapping[str, Any], records: Iterator[RoundRecord]) -> None:
        nonlocal now, writing, behind
        spent = 20e-6 * len(list(records))
        now, writing, behind = now + spent, writing + spent, 0

    monkeypatch.setattr(run_file, "write_run", write)
    monkeypatch.setattr("time.monotonic", lambda: now)
    file = RunFile(tmp_path, lambda: FACTS, lambda: rounds)
    lags = []
    for number in range(1, 3001):
        now += round_s
        rounds.append(record(number))
        behind += 1
        file.keep_up()
        lags.append(behind)
    assert 0 < writing <= 0.0125 * now
    # At the most as many seconds as a hundred times the writing, and what a round takes.
    assert max(lags) * round_s <= 3000 * 20e-6 / run_file.LARGEST_SHARE + round_s


@pytest.fixture
def rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it written once and then, of its own accord, not again."""
    monkeypatch.setattr(run_file, "LARGEST_SHARE", 1e-12)


def rounds_in(folder: Path) -> tuple[list[int], bool]:
    document = json.loads((folder / "run.json").read_text())
    assert document["summary"]["rounds"] == len(document["rounds"])
    return [each["round"] for each in document["rounds"]], document["finished"]


def committed_in(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as database:
        return [number for (number,) in database.execute("SELECT round FROM rounds ORDER BY round")]


class StoppedError(Exception):
    pass


def stopped_after(rounds: int, run_folder: Path, lags: list[int]) -> None:
    def on_round(record: RoundRecord) -> None:
        lags.append(record.round - len(read_run(run_folder).rounds))
        if record.round == rounds:
            raise StoppedError

    with closing(Ledger(run_folder)) as ledger:
        settings = settings_of(2, rounds=6)
        if ledger.settings() is None:
            ledger.begin(settings.model_dump(mode="json"))
        run = Run(settings, ledger, on_round)
        try:
            asyncio.run(federate(run))
        except BaseExceptionGroup as group:
            assert group.subgroup(StoppedError)
        except StoppedError:
            pass


@pytest.mark.usefixtures("rare")
def test_it_is_whole_after_a_stop_and_at_the_end(tmp_path: Path) -> None:
    lags: list[int] = []
    stopped_after(4, tmp_path, lags)
    assert lags == [0, 1, 2, 3]
    assert rounds_in(tmp_path) == ([1, 2, 3, 4], False)
    stopped_after(7, tmp_path, lags)
    assert rounds_in(tmp_path) == ([1, 2, 3, 4, 5, 6], True)
    assert committed_in(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("rare")
def test_a_server_that_goes_on_after_a_crash_first_brings_it_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crash:
        crash.setattr(Run, "_write", lambda run: None)
        stopped_after(4, tmp_path, [])
    assert rounds_in(tmp_path) == ([1], False)
    lags: list[int] = []
    stopped_after(5, tmp_path, lags)
    assert lags == [1]
    assert rounds_in(tmp_path) == ([1, 2, 3, 4, 5], False)


@pytest.mark.usefixtures("rare")
def test_a_disk_that_is_full_when_a_run_stops_does_not_hide_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    def on_round(record: RoundRecord) -> None:
        monkeypatch.setattr(run_file, "write_run", full)
        raise StoppedError

    run = Run(settings_of(1, rounds=2), Ledger(tmp_path), on_round)
    with pytest.raises((StoppedError, BaseExceptionGroup)) as caught:
        asyncio.run(federate(run))
    assert "StoppedError" in repr(caught.value)
    assert "run.json is behind the ledger: [Errno 28] No space left on device" in caplog.text
