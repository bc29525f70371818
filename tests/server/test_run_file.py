"""When run.json is written, and that it is whole when a run ends, stops or goes on."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fedaq.metric import Metric
from fedaq_lab.local import federate
from fedaq_server.records import run_file
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.run_file import RunFile
from fedaq_server.records.saved import read_run
from fedaq_server.run import Run
from server.test_saved import FACTS, record
from system.live import settings_of


class Clock:
    """A clock of our own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now_s)


@pytest.mark.parametrize("round_s", [0.01, 1.0, 600.0])
def test_what_a_round_costs_does_not_grow_with_their_number(
    round_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a round takes, it is put into JSON once, and then copied some hundred times."""
    clock, rounds = Clock(monkeypatch), [record(1)]
    asked: list[int] = []

    def records(after: int) -> list[RoundRecord]:
        asked.extend(range(after, len(rounds)))
        return rounds[after:]

    file = RunFile(tmp_path, lambda: FACTS, records, Metric())
    copied, lags, inode = 0, [], 0
    for number in range(2, 3001):
        clock.now_s += round_s
        rounds.append(record(number))
        file.keep_up(number)
        if (now := (tmp_path / "run.json").stat().st_ino) != inode:
            copied, inode = copied + number, now
        lags.append((number - file._has, number))
    assert asked == list(range(file._has))
    slow = sum(range(0, 3001, int(run_file.OLDEST_S / round_s)))
    assert copied <= (1 / run_file.GROWTH + 2) * 3000 + slow
    assert all(lag <= 0.01 * number for lag, number in lags)
    assert max(lag for lag, _ in lags) * round_s <= run_file.OLDEST_S
    file.write(finished=True)
    assert [each.round for each in read_run(tmp_path).rounds] == list(range(1, 3001))


def test_a_disk_that_was_full_in_the_middle_of_a_line_spoils_no_later_file(
    tmp_path: Path,
) -> None:
    rounds, broken = [record(1), record(2)], [True]

    def records(after: int) -> Iterator[RoundRecord]:
        for each in rounds[after:]:
            yield each
            if broken.pop() if broken else False:
                raise OSError(28, "No space left on device")

    file = RunFile(tmp_path, lambda: FACTS, records, Metric())
    with pytest.raises(OSError, match="No space left"):
        file.keep_up(2)
    file.keep_up(2)
    assert rounds_in(tmp_path) == ([1, 2], True)


@pytest.fixture
def rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it written once and then, of its own accord, not again."""
    monkeypatch.setattr(run_file, "GROWTH", 1e12)


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
        monkeypatch.setattr(run_file, "replacing", full)
        raise StoppedError

    run = Run(settings_of(1, rounds=2), Ledger(tmp_path), on_round)
    with pytest.raises((StoppedError, BaseExceptionGroup)) as caught:
        asyncio.run(federate(run))
    assert "StoppedError" in repr(caught.value)
    assert "run.json is behind the ledger: [Errno 28] No space left on device" in caplog.text
