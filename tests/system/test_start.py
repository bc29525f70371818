"""Runs that begin with a trained model: clients need no file, and a resumed server neither."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.errors import UserError
from fedaq.modules.bound import Bound
from fedaq.settings import load_settings
from fedaq.tasks import initial_model, load_task
from fedaq_client.session import Session
from fedaq_lab import local
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.run_folder import new_run
from fedaq_server.records.weights import read_weights, write_weights
from fedaq_server.run import Run
from system.live import learner, settings_of

CLIENTS = 2
# Training takes the model nowhere, so what a round ends with is what it began with.
STILL = {"training__learning_rate": 1e-9}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of digits, trained from another seed than that of the tests."""
    folder = tmp_path_factory.mktemp("trained")
    run = Run(settings_of(CLIENTS, rounds=12, seed=7), Ledger(folder), ignore)
    asyncio.run(federate(run))
    assert run.records[-1].test_accuracy > 0.95
    return folder / "model.safetensors"


def ignore(record: RoundRecord) -> None:
    pass


def accuracy(flat: Any) -> float:
    task = load_task("digits", None)
    module = initial_model(task, 1)
    Bound(module, learner(0, CLIENTS).spec).flat[:] = flat
    return task.evaluate(module, task.test_data(None)).accuracy


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"coding__downlink": "model"},
        {"energy__budget_j": 0.2},
        {"energy__budget_j": 1.0, "coding__entropy": False},
        {"energy__budget_j": 1.0, "coding__entropy": False, "coding__downlink": "model"},
        {"scheme": "fixed"},
        {"scheme": "fp32"},
        {"scheme": "fp32", "coding__downlink": "difference"},
        {"scheme": "feddq", "coding__downlink": "difference", "base": "broadcast"},
        {"scheme": "stc"},
        {"scheme": "topk"},
    ],
    ids=lambda flags: "-".join(map(str, flags.values())) or "default",
)
def test_the_first_round_begins_with_the_trained_model(
    flags: dict[str, Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the server and at the clients, which are sent it at the usual price."""
    held: dict[str, float] = {}
    make = local._members

    @contextmanager
    def seen(*arguments: Any) -> Iterator[list[local.Member]]:
        with make(*arguments) as members:
            yield [replace(member, turn=partial(noting, member)) for member in members]

    @asynccontextmanager
    async def noting(member: local.Member, session: Session) -> AsyncIterator[None]:
        async with member.turn(session):
            yield
            held[member.name] = accuracy(session.learner.held)

    monkeypatch.setattr(local, "_members", seen)
    settings = settings_of(CLIENTS, rounds=1, start_from=trained, **STILL, **flags)
    run = Run(settings, Ledger(tmp_path), ignore)
    before = accuracy(run.federation.model)
    assert before > 0.95
    assert accuracy(learner(0, CLIENTS).held) < 0.3
    asyncio.run(federate(run))
    record = run.records[0]
    assert record.test_accuracy > before - 0.04
    assert [each > before - 0.04 for each in held.values()] == [True] * CLIENTS
    assert record.downlink_bits > 0.5
    assert record.energy_j > 1e-7 * 8 * record.downlink_payload_bytes


def test_without_differences_the_broadcast_is_of_the_trained_model(
    trained: Path, tmp_path: Path
) -> None:
    settings = settings_of(CLIENTS, rounds=1, start_from=trained, scheme="fp32", **STILL)
    run = Run(settings, Ledger(tmp_path), ignore)
    expected = np.empty_like(run.federation.model)
    read_weights(trained, run.spec, expected)
    asyncio.run(federate(run))
    assert np.allclose(run.federation.model, expected, atol=1e-6)


class StoppedError(Exception):
    pass


def test_a_run_goes_on_without_the_file(trained: Path, tmp_path: Path) -> None:
    """Whether it was stopped before its first round or later, to the same model."""
    given = tmp_path / "given.safetensors"
    given.write_bytes(trained.read_bytes())
    flags = {"scheme": "fixed", "coding__downlink": "difference", "rounds": 4}
    settings = settings_of(CLIENTS, start_from=given, **flags)
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    for folder in (calm, wild):
        folder.mkdir()
    undisturbed = Run(settings, Ledger(calm), ignore)
    asyncio.run(federate(undisturbed))

    def stop(record: RoundRecord) -> None:
        if record.round == 2:
            raise StoppedError

    begun = Ledger(wild)
    Run(settings, begun, ignore)
    given.unlink()
    for on_round in (stop, ignore):
        begun.close()
        begun = Ledger(wild)
        run = Run(settings, begun, on_round)
        try:
            asyncio.run(federate(run))
        except* StoppedError:
            assert (wild / "start.safetensors").exists()
    assert len(run.records) == 4
    assert run.federation.model.tobytes() == undisturbed.federation.model.tobytes()
    assert not list(tmp_path.glob("*/start.safetensors"))


def test_a_wrong_file_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    other, spec = tmp_path / "other.safetensors", learner(0, CLIENTS).spec
    tensors = (*spec.tensors[:-1], TensorSpec(spec.tensors[-1].name, (5,)))
    write_weights(other, ModelSpec(tensors), np.zeros(sum(t.elements for t in tensors), "f4"))
    for number in (np.nan, np.inf):
        values = np.zeros(spec.parameters, "f4")
        values[-1] = number
        write_weights(tmp_path / f"{number}", spec, values)
    for path, sentence in [
        (other, r"other.safetensors: 4.bias is float32 5; the task's model has float32 4.bias 10$"),
        (tmp_path / "none", r"none: not a model that can be read: "),
        (tmp_path / "nan", r"^--from .*nan: 4.bias has NaN or infinity$"),
        (tmp_path / "inf", r"^--from .*inf: 4.bias has NaN or infinity$"),
    ]:
        settings = settings_of(CLIENTS, start_from=path)
        with pytest.raises(UserError, match=sentence), new_run(tmp_path / "new", settings) as run:
            Run(*run, ignore)
        assert not (tmp_path / "new").exists()


def test_a_run_that_goes_on_keeps_its_start() -> None:
    begun = settings_of(CLIENTS).model_dump(mode="json")
    older = {key: value for key, value in begun.items() if key not in ("start_from", "limits")}
    for run in (begun, older):
        with pytest.raises(UserError, match=r"^--from: the run has begun with start_from = None,"):
            load_settings(environment={}, begun=run, flags={"start_from": Path("x.safetensors")})
    assert load_settings(environment={}, begun=older) == load_settings(environment={}, begun=begun)


@pytest.mark.parametrize("budget_j", [0.08, 0.2])
def test_a_budget_pays_for_the_trained_model_first(
    budget_j: float, trained: Path, tmp_path: Path
) -> None:
    """Clients train the trained model, and the budget lasts for the rounds."""
    run = Run(
        settings_of(CLIENTS, rounds=6, start_from=trained, energy__budget_j=budget_j),
        Ledger(tmp_path),
        ignore,
    )
    asyncio.run(federate(run))
    first, *_, last = run.records
    assert len(run.records) == 6
    assert first.downlink_bits > 1
    assert min(first.test_accuracy, last.test_accuracy) > 0.9
    assert budget_j / 2 < sum(record.energy_j for record in run.records) <= budget_j


def test_a_budget_that_does_not_pay_for_the_trained_model_is_refused(
    trained: Path, tmp_path: Path
) -> None:
    settings = settings_of(CLIENTS, rounds=6, start_from=trained, energy__budget_j=0.005)
    run = Run(settings, Ledger(tmp_path), ignore)
    with pytest.raises(UserError, match=r"the model that the run begins with, which clients lack"):
        asyncio.run(federate(run))
