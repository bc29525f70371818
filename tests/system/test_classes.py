"""Classes that a task states: who has others is told which, and what was kept before is read."""

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from fedaq import tasks
from fedaq.codec import model
from fedaq.codec.model import ModelSpec
from fedaq.errors import UserError
from fedaq.tasks import Task, load_task
from fedaq.tasks.digits import task as digits
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.training import Learner
from fedaq_lab.local import federate
from fedaq_server.records.exporting import trained_model
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.saved import read_run
from fedaq_server.run import Run
from system.live import live_server, settings_of, take_part
from system.raw_client import raw_client

NAMES = tuple(f"digit {number}" for number in range(10))


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let ``--task named`` be digits whose outputs have names."""
    monkeypatch.setattr("system.test_classes.NAMED", replace(digits, classes=NAMES), raising=False)
    monkeypatch.setitem(tasks.BUILT_IN, "named", "system.test_classes:NAMED")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def learner(classes: tuple[str, ...]) -> Learner:
    task = replace(digits, classes=classes)
    return Learner(task, task.train_data(None), seed=1)


OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "an earlier version": (
        (),
        "classes missing there: digit 0, digit 1, digit 2, digit 3, digit 4 and 5 more; none is "
        "stated there, as by an earlier version of fedaq or of the task",
    ),
    "one other": (
        (*NAMES[:9], "letter a"),
        "class missing there: digit 9; class missing here: letter a",
    ),
    "one less": (NAMES[:9], "class missing there: digit 9"),
    "one more": ((*NAMES, "letter a"), "class missing here: letter a"),
    "another order": (
        (*NAMES[:8], "digit 9", "digit 8"),
        "class 9 is digit 8 here and digit 9 there",
    ),
    "one twice": ((*NAMES, "digit 3"), "class 11 is missing here and digit 3 there"),
}


def test_who_has_other_classes_is_told_which(tmp_path: Path) -> None:
    """Over a socket; the client whose classes are right goes on to the end of the run."""
    ends: dict[str, str] = {}

    async def scenario() -> Run:
        settings = settings_of(1, task="named", rounds=2)
        async with live_server(settings, tmp_path, lambda run, record: None) as (run, address):
            for name, (classes, _) in OTHERS.items():
                stated = ModelSpec(run.spec.tensors, classes)
                async with raw_client(address, stated) as client:
                    await client.join()
                    ends[name] = (await client.status())[1]
            with pytest.raises(UserError, match=r"refused this client: .* missing there: digit 9 "):
                await take_part(address, "short", learner(NAMES[:9]))
            doctor = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fedaq", "doctor", "client", "--server", address),
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "COLUMNS": "500"},
            )
            said = (await doctor.communicate())[0].decode()
            assert "the model is not the server's: classes missing here: digit 0, " in said
            await take_part(address, "right", learner(NAMES))
        return run

    run = asyncio.run(scenario())
    for name, (_, said) in OTHERS.items():
        assert ends[name] == (
            f"the client's model is not the server's: {said} (server here, client there)"
        )
    assert [record.clients for record in run.records] == [1, 1]


def test_classes_come_back_as_they_went() -> None:
    spec = ModelSpec((), ("Fuß", "a, b", "\x1b"))
    data = model.to_message(spec).SerializeToString()
    assert model.from_message(pb.ModelSignature.FromString(data)) == spec
    unstated = ModelSpec(learner(()).spec.tensors)
    assert b"cat" not in model.to_message(unstated).SerializeToString()
    assert not model.to_message(unstated).classes


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("catdog", "must be a sequence of names, each a str"),
        ((1, 2), "must be a sequence of names, each a str"),
        (("cat", "cat"), "must differ from one another"),
        (("cat", "\udce9"), "is no UTF-8 text"),
        (tuple(map(str, range(100_001))), "it lists more than 100000 classes"),
        (("c" * 2**20, "d"), "the names of its classes take more than 1048576 bytes"),
    ],
)
def test_a_task_states_them_right_or_is_refused(classes: Any, said: str) -> None:
    with pytest.raises(UserError, match="^model: .*" + said):
        learner(classes)


# ---- Runs of the task images that an earlier version began -------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes, one dark and one bright."""
    root, generator = tmp_path / "pictures", np.random.default_rng(1)
    for name, level in (("cat", 40), ("dog", 200)):
        (root / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root


def as_before(path: Path) -> None:
    """Rewrite a model as an earlier version wrote it: its last layer is called by the classes."""
    tensors = {name.replace("output", "cat,dog"): v for name, v in load_file(path).items()}
    assert "cat,dog.bias" in tensors
    save_file(tensors, path)


class StoppedError(Exception):
    pass


def ignore(record: RoundRecord) -> None:
    pass


def test_a_run_of_an_earlier_version_goes_on_and_is_begun_with_and_used(
    pictures: Path, tmp_path: Path
) -> None:
    flags: dict[str, Any] = {"task": "images", "data": pictures, "rounds": 3, "scheme": "fixed"}
    calm, wild, third = (tmp_path / name for name in ("calm", "wild", "third"))
    for folder in (calm, wild, third):
        folder.mkdir()
    undisturbed = Run(settings_of(2, **flags), Ledger(calm), ignore)
    asyncio.run(federate(undisturbed))

    def stop(record: RoundRecord) -> None:
        if record.round == 2:
            raise StoppedError

    ledger = Ledger(wild)
    with pytest.raises(StoppedError):
        asyncio.run(federate(Run(settings_of(2, **flags), ledger, stop)))
    ledger.close()
    as_before(wild / "round-000002.safetensors")
    # Nor did its ledger have digests.
    with closing(sqlite3.connect(wild / "ledger.sqlite")) as database, database:
        database.execute("DELETE FROM run WHERE name IN ('model', 'held')")
    run = Run(settings_of(2, **flags), Ledger(wild), ignore)
    asyncio.run(federate(run))
    assert run.federation.model.tobytes() == undisturbed.federation.model.tobytes()

    kept = wild / "model.safetensors"
    assert kept.read_bytes() == (calm / "model.safetensors").read_bytes()
    as_before(kept)
    task: Task = load_task("images", pictures)
    found = task.evaluate(trained_model(task, read_run(wild), wild), task.test_data(pictures))
    assert found.accuracy == pytest.approx(run.records[-1].test_accuracy)
    following = Run(settings_of(2, start_from=kept, **flags), Ledger(third), ignore)
    assert following.federation.model.tobytes() == run.federation.model.tobytes()


def test_a_model_of_other_pictures_is_not_begun_with(pictures: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"task": "images", "data": pictures, "rounds": 1}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    run = Run(settings_of(2, **flags), Ledger(tmp_path / "one"), ignore)
    asyncio.run(federate(run))
    (pictures / "dog").rename(pictures / "wolf")
    start = tmp_path / "one" / "model.safetensors"
    with pytest.raises(UserError, match="class missing there: wolf; class missing here: dog "):
        Run(settings_of(2, start_from=start, **flags), Ledger(tmp_path / "two"), ignore)
