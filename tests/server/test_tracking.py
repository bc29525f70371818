"""Rounds in TensorBoard and MLflow, read back from there; each test where its library is."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest

from fedaq.errors import FedaqError, UserError
from fedaq.settings import Settings
from fedaq_server.records import tracking
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.saved import SavedRun, read_run
from fedaq_server.records.tracking import TAG, metrics, track_runs
from server.run_files import write_run
from server.test_saved import FACTS, record


def save(folder: Path, last: int, **facts: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings().model_dump(mode="json")
    write_run(folder, {**FACTS, "settings": settings, **facts}, rounds_to(last))


def rounds_to(last: int) -> list[RoundRecord]:
    rounds = [
        record(number, test_accuracy=number / 10, energy_j=0.5) for number in range(1, last + 1)
    ]
    return [replace(rounds[0], train_loss=nan, uplink_wire_bytes=None), *rounds[1:]]


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    save(tmp_path / "run", 2)
    (first, one), (second, two) = metrics(read_run(tmp_path / "run").rounds)
    assert (first, second) == (1, 2)
    assert two.keys() - one.keys() == {"train_loss", "uplink_wire_bytes"}
    assert (one["energy_total_j"], two["energy_total_j"]) == (0.5, 1.0)
    assert two["test_accuracy"] == 0.2
    assert "round" not in two


# ---- TensorBoard ---------------------------------------------------------------


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 5)) for event in events.Scalars(f"fedaq/{name}")]


def test_tensorboard_has_every_round_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run, logs = tmp_path / "run", tmp_path / "tb"
    save(run, 2, finished=False)
    track_runs([run], logs, None, follow=False)
    assert scalars(logs / "run", "test_accuracy") == [(1, 0.1), (2, 0.2)]
    save(run, 4)
    (logs / "run" / "events.out.tfevents.of.somebody.else").touch()
    track_runs([run], logs, None, follow=False)
    assert scalars(logs / "run", "test_accuracy") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert scalars(logs / "run", "energy_total_j")[-1] == (4, 2.0)
    assert scalars(logs / "run", "train_loss")[0][0] == 2
    assert (logs / "run" / "events.out.tfevents.of.somebody.else").exists()


def test_runs_whose_folders_share_a_name_are_told_apart(tmp_path: Path) -> None:
    """As those of a comparison, all of which are called seed-1, in one command or in several."""
    pytest.importorskip("tensorboard")
    folders = [tmp_path / "cmp" / line / "seed-1" for line in ("fp32", "fedaq", "fixed")]
    for last, folder in enumerate(folders, 1):
        save(folder, last, id=folder.parent.name)
    logs = tmp_path / "tb"
    track_runs(folders[:2], logs, None, follow=False)
    assert len(scalars(logs / "fp32" / "seed-1", "energy_j")) == 1
    assert len(scalars(logs / "fedaq" / "seed-1", "energy_j")) == 2
    track_runs(folders[2:], logs, None, follow=False)
    assert len(scalars(logs / "seed-1", "energy_j")) == 3
    # A run keeps its place, and another one does not get it.
    save(tmp_path / "other" / "seed-1", 4, id="another")
    for _ in range(2):
        for folder in (tmp_path / "other" / "seed-1", folders[0]):
            track_runs([folder], logs, None, follow=False)
    places = sorted(path.parent for path in logs.rglob("events.*"))
    (beside,) = logs.glob("seed-1-*")
    assert places == sorted([*(logs / line / "seed-1" for line in ("fp32", "fedaq")),
                             logs / "seed-1", beside])  # fmt: skip
    assert len(scalars(beside, "energy_j")) == 4


def test_a_run_is_followed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(tracking, "POLL_S", 0.02)
    going, over = tmp_path / "going", tmp_path / "over"
    save(going, 1, finished=False)
    save(over, 3, id="over")
    follower = threading.Thread(
        target=track_runs, args=([going, over], tmp_path / "tb", None), kwargs={"follow": True}
    )
    follower.start()
    for last in (2, 3):
        time.sleep(0.2)
        save(going, last, finished=False)
    time.sleep(0.2)
    assert follower.is_alive()
    save(going, 3)
    follower.join(20.0)
    assert not follower.is_alive()
    for name in ("going", "over"):
        assert [step for step, _ in scalars(tmp_path / "tb" / name, "energy_j")] == [1, 2, 3]


def test_a_file_that_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses, read = 0, 0
    save(tmp_path, 1, finished=False)

    def sleep(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 50:
            save(tmp_path, 2)

    def counting(folder: Path) -> SavedRun:
        nonlocal read
        read += 1
        return read_run(folder)

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr(tracking, "read_run", counting)
    grown = tracking._grown({tmp_path: read_run(tmp_path)}, {})
    assert (pauses, read) == (50, 2)
    assert [len(run.rounds) for run in grown.values()] == [2]


def test_a_run_that_stalls_does_not_hold_up_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    stalled, going = tmp_path / "stalled", tmp_path / "going"
    save(stalled, 1, id="aa", finished=False)
    save(going, 1, id="bb", finished=False)
    events: Iterator[Callable[[], object]]
    events = iter([lambda: save(going, 2, id="bb", finished=False),
                   lambda: save(going, 3, id="bb"),
                   lambda: save(stalled, 2, id="aa")])  # fmt: skip
    brought = []

    def sleep(seconds: float) -> None:
        event = next(events, None)
        assert event is not None, "it waits for what has come"
        event()

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(tracking.EventFiles, "update", lambda self, run: brought.append(
        (run.id, len(run.rounds))
    ))  # fmt: skip
    track_runs([stalled, going], tmp_path / "tb", None, follow=True)
    assert brought == [("aa", 1), ("bb", 1), ("bb", 2), ("bb", 3), ("aa", 2)]


# ---- MLflow --------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def logged(store: str, identity: str) -> list[Any]:
    client = tracking.open_mlflow(store)
    (experiment,) = (e for e in client.search_experiments() if e.name == "digits")
    return list(
        client.search_runs([experiment.experiment_id], filter_string=f"tags.`{TAG}`='{identity}'")
    )


def test_mlflow_has_every_round_once_and_one_run(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "ROUNDS_AT_A_TIME", 2)
    save(tmp_path / "run", 3, finished=False)
    track_runs([tmp_path / "run"], None, store, follow=False)
    save(tmp_path / "run", 7)
    (tmp_path / "run").rename(tmp_path / "moved")
    track_runs([tmp_path / "moved"], None, store, follow=False)
    (run,) = logged(store, "0123")
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["energy.radio"] == "constant"
    history = tracking.open_mlflow(store).get_metric_history(run.info.run_id, "test_accuracy")
    assert [(metric.step, metric.value) for metric in sorted(history, key=lambda m: m.step)] == [
        (number, number / 10) for number in range(1, 8)
    ]


def test_runs_in_mlflow_are_told_apart(store: str, tmp_path: Path) -> None:
    for name, identity in (("one/seed-1", "aa"), ("two/seed-1", "bb"), ("old", "")):
        save(tmp_path / name, 1, id=identity)
    folders = [tmp_path / name for name in ("one/seed-1", "two/seed-1", "old")]
    track_runs(folders, None, store, follow=False)
    track_runs(folders, None, store, follow=False)
    client = tracking.open_mlflow(store)
    (experiment,) = (e for e in client.search_experiments() if e.name == "digits")
    runs = client.search_runs([experiment.experiment_id])
    names = sorted(run.info.run_name for run in runs)
    assert names == ["old", "one/seed-1", "two/seed-1"]


def test_an_mlflow_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    save(tmp_path / "run", 1)
    with pytest.raises(FedaqError, match=r"^MLflow at nowhere://x: ") as error:
        track_runs([tmp_path / "run"], None, "nowhere://x", follow=False)
    assert "\n" not in str(error.value)


# ---- Mistakes ------------------------------------------------------------------


def test_a_folder_without_a_run_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run is in there"):
        track_runs([tmp_path], tmp_path / "tb", None, follow=False)
    assert not (tmp_path / "tb").exists()


def test_a_run_and_its_copy_are_not_mixed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for name in ("run", "copy"):
        save(tmp_path / name, 1)
    with pytest.raises(UserError, match=r"copy: the same run as .*run; name one of them$"):
        track_runs([tmp_path / "run", tmp_path / "copy"], tmp_path / "tb", None, follow=False)
    assert not (tmp_path / "tb").exists()


@pytest.mark.parametrize(("to", "missing"), [((Path("tb"), None), "tensorboard"),
                                             ((None, "sqlite://"), "mlflow")])  # fmt: skip
def test_a_missing_extra_is_named(
    to: tuple[Any, Any], missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedaq.cli.wording import sentence_of

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    save(tmp_path / "run", 1)
    monkeypatch.setattr(tracking, "import_module", absent)
    with pytest.raises(ModuleNotFoundError) as error:
        track_runs([tmp_path / "run"], *to, follow=False)
    assert sentence_of(error.value) == (
        f"this command needs {missing}: pip install 'fedaq[{missing}]'"
    )
