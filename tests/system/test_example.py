"""The example project: each client with the recording of its own device."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedaq.settings import load_settings
from fedaq.tasks import load_task
from fedaq.tasks.partition import WHOLE
from fedaq_client.cli.task_check import check
from fedaq_client.cli.task_findings import Kind
from fedaq_client.training import Learner
from fedaq_lab import local
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run

EXAMPLE = Path(__file__).parents[2] / "examples" / "sensors"
CLIENTS = 3
TASK = "sensors.task:task"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(EXAMPLE)
    from sensors.make import make

    make(tmp_path / "data", CLIENTS, minutes=4, seed=1)
    return tmp_path / "data"


def test_it_learns_from_devices_that_differ(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def members(*_: object) -> Iterator[list[local.Member]]:
        names = [f"client-{number}" for number in range(1, CLIENTS + 1)]
        tasks = {name: load_task(TASK, data / name) for name in names}
        yield [
            local.Member(name, Learner(task, task.train_data(data / name), 1))
            for name, task in tasks.items()
        ]

    monkeypatch.setattr(local, "_members", members)
    settings = load_settings(
        environment={},
        flags={"task": TASK, "data": data / "server", "clients": CLIENTS, "rounds": 16},
    )
    run = Run(settings, Ledger(tmp_path), lambda record: None)
    asyncio.run(local.federate(run))
    accuracies = [record.test_accuracy for record in run.records]
    assert accuracies[0] < 0.4
    assert max(accuracies) > 0.6, accuracies


def test_the_devices_differ_and_the_same_seed_gives_the_same_data(data: Path) -> None:
    from sensors.make import make

    make(data.parent / "again", CLIENTS, minutes=4, seed=1)
    folders = sorted(path.name for path in data.iterdir())
    assert folders == ["client-1", "client-2", "client-3", "server"]
    for name in folders:
        once, again = (folder / name / "recording.csv" for folder in (data, data.parent / "again"))
        assert once.read_bytes() == again.read_bytes()
    shares = [sorted(histogram(data / name).items()) for name in folders]
    assert len({str(share) for share in shares}) == len(folders)


def histogram(folder: Path) -> dict[int, int]:
    labels: Any = load_task(TASK, folder).train_data(folder).targets  # type: ignore[attr-defined]
    return {int(label): int((labels == label).sum()) for label in labels.unique()}


def test_nothing_is_wrong_with_it(data: Path) -> None:
    flags = {"task": TASK, "data": data / "client-1"}
    settings = load_settings(environment={}, flags=flags)
    result = check(load_task(TASK, data / "client-1"), settings, WHOLE)
    assert result.findings == []
    missing = check(load_task(TASK, None), load_settings(environment={}), WHOLE)
    assert [(f.kind, f.sentence) for f in missing.findings] == [
        (Kind.WRONG, "task sensors: --data FOLDER with recording.csv is needed")
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("swim,1,2,3\n", "activity 'swim'; known are rest, walk, run, stairs, cycle, ride"),
        ("run,1,2,x\n", "cannot be read: "),
        ("run,1,2,3\n" * 127, "no 128 samples in a row of one activity"),
    ],
)
def test_a_wrong_recording_is_named(line: str, sentence: str, data: Path) -> None:
    path = data / "client-1" / "recording.csv"
    path.write_text("activity,x,y,z\n" + line)
    settings = load_settings(environment={}, flags={"data": data / "client-1"})
    (finding,) = check(load_task(TASK, None), settings, WHOLE).findings
    assert finding.sentence.startswith(f"task sensors: {path}: {sentence}")
