"""Clients' own tests, from what they hold back to all that is shown of them."""

import asyncio
import json
from dataclasses import replace
from math import inf, isnan, nan
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from torch.utils.data import Subset

from fedaq.errors import UserError
from fedaq.tasks import Evaluation, Examples, load_task
from fedaq.tasks.partition import Partition
from fedaq_client.sharing import divided, local_data
from fedaq_client.training import Learner
from fedaq_lab.local import federate
from fedaq_lab.report_page import write_report
from fedaq_server.dashboard.live import changes
from fedaq_server.dashboard.watch import Watch
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import Validation
from fedaq_server.records.saved import read_run
from fedaq_server.records.tracking import metrics
from fedaq_server.rounds.validation import averaged, of_names, told_by_most
from fedaq_server.run import Run
from system.live import settings_of

HELD_BACK = "system.number_task:held_back"
# Of the 60 examples that two clients share.
TRAINED, TESTED = 22, 8


def trained(folder: Path, task: str = HELD_BACK) -> Run:
    run = Run(settings_of(2, task=task, rounds=3), Ledger(folder), lambda record: None)
    asyncio.run(federate(run))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("held-back"))


def parts(run: Run) -> dict[str, tuple[Examples, Examples]]:
    """Return what each client trains with and holds back."""
    settings, found = run.settings, {}
    for index in range(2):
        data = local_data(
            run.task.train_data(None), Partition(index, 2), settings.partition, settings.seed
        )
        mine, held_back = divided(data, run.task.validation_share, settings.seed)
        assert isinstance(mine, Examples)
        assert isinstance(held_back, Examples)
        found[f"client-{index + 1}"] = mine, held_back
    return found


def test_each_client_tests_the_model_that_it_received(run: Run) -> None:
    """The first is that of the seed, which anybody can test."""
    first = run.records[0].validations
    assert set(first) == {"client-1", "client-2"}
    for name, (mine, held_back) in parts(run).items():
        assert (len(mine), len(held_back)) == (TRAINED, TESTED)
        learner = Learner(run.task, mine, run.settings.seed, held_back=held_back)
        expected = learner.validate()
        assert expected is not None
        evaluation, examples = expected
        values = {"loss": evaluation.loss, **evaluation.metrics}
        assert first[name] == Validation(examples, values)
    assert first["client-1"] != first["client-2"]
    errors = [record.client_metrics["mae"] for record in run.records]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]


def test_what_is_kept_of_them(run: Run) -> None:
    saved = read_run(run.folder)
    assert list(saved.rounds) == run.records
    for record in saved.rounds:
        assert set(record.client_metrics) == {"loss", "mae", "r2"}
        for name, mean in record.client_metrics.items():
            told = [each.metrics[name] for each in record.validations.values()]
            assert mean == pytest.approx(sum(told) / 2)
    document = json.loads((run.folder / "run.json").read_text())
    assert document["rounds"][0]["validations"]["client-2"]["examples"] == TESTED


def test_what_is_shown_of_them(run: Run, tmp_path: Path) -> None:
    last = run.records[-1].client_metrics
    text = generate_latest(run.metrics.registry).decode()
    for name, value in last.items():
        assert f'fedaq_client_metric{{name="{name}"}} {value}' in text
    *_, (_, values) = metrics(run.records)
    assert {n: values[f"client_{n}"] for n in last} == last
    page, _ = write_report([run.folder], tmp_path)
    assert f"<dt>clients&#39; mae</dt><dd>{last['mae']:#.4g}</dd>" in page.read_text()
    now = Watch(run).view(ended=True)
    assert now.client_metrics.startswith(f"loss {last['loss']:#.4g}, ")
    assert changes(None, now)["client_metrics"] == now.client_metrics
    assert "client_metrics" not in changes(now, now)


def test_nothing_is_reported_or_shown_where_nothing_is_held_back(tmp_path: Path) -> None:
    run = trained(tmp_path, "system.number_task:task")
    assert all(not record.client_metrics and not record.validations for record in run.records)
    document = (tmp_path / "run.json").read_text()
    assert "client_metrics" not in document
    assert "validations" not in document
    assert "fedaq_client_metric{" not in generate_latest(run.metrics.registry).decode()
    assert "client_metrics" not in changes(None, Watch(run).view(ended=True))
    page, _ = write_report([tmp_path], tmp_path / "report")
    assert "clients&#39;" not in page.read_text()


# ---- What is held back -----------------------------------------------------------


def test_examples_are_trained_with_or_held_back() -> None:
    data = load_task("digits", None).train_data(None)
    mine, held_back = divided(data, 0.2, 1)
    assert held_back is not None
    assert isinstance(mine, Examples)
    assert isinstance(held_back, Examples)
    assert len(held_back) == round(0.2 * len(data))
    rows = [row.numpy().tobytes() for part in (mine, held_back) for row in part.inputs]
    assert isinstance(data, Examples)
    assert sorted(rows) == sorted(row.numpy().tobytes() for row in data.inputs)
    again, other = divided(data, 0.2, 1)[1], divided(data, 0.2, 2)[1]
    assert isinstance(again, Examples)
    assert isinstance(other, Examples)
    assert again.inputs.equal(held_back.inputs)
    assert not other.inputs.equal(held_back.inputs)


def test_too_few_examples_to_hold_one_back() -> None:
    data = load_task("digits", None).train_data(None)
    one, _ = divided(data, 0.5, 1)
    assert isinstance(one, Examples)
    few = Examples(one.inputs[:1], one.targets[:1])
    assert divided(few, 0.5, 1) == (few, None)


def test_data_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UserError, match="a list cannot be shared out; return Examples"):
        divided([1, 2, 3, 4], 0.25, 1)
    assert not isinstance(divided([1, 2, 3, 4], 0, 1)[0], Subset)


@pytest.mark.parametrize("share", [-0.1, 0.51, nan, inf])
def test_no_such_share(share: float) -> None:
    with pytest.raises(ValueError, match="may be held back"):
        replace(load_task("digits", None), validation_share=share)


def test_a_test_leaves_the_module_as_training_expects_it() -> None:
    def evaluate(model: object, data: object) -> Evaluation:
        learner.model.eval()
        return Evaluation(0.5, 1.0)

    task = replace(load_task("digits", None), evaluate=evaluate)
    learner = Learner(task, [], held_back=[1])
    learner.model[0].eval()  # type: ignore[index]
    learner.validate()
    seen = [module.training for module in learner.model.modules()]
    assert not learner.model[0].training  # type: ignore[index]
    assert seen.count(False) == 1


# ---- Means -----------------------------------------------------------------------


def test_means_are_weighted_and_of_those_who_have_the_metric() -> None:
    told = {"a": Validation(1, {"loss": 1.0, "f1": 0.5}), "b": Validation(3, {"loss": 2.0})}
    assert averaged(told) == {"loss": 1.75, "f1": 0.5}
    assert averaged({}) == {}


@pytest.mark.parametrize("value", [nan, inf, 1e308])
def test_a_mean_of_what_is_not_finite_is_not_finite_or_too_large_is_no_error(value: float) -> None:
    told = {"a": Validation(2**40, {"loss": value}), "b": Validation(1, {"loss": 1.0})}
    mean = averaged(told)["loss"]
    assert isnan(mean) == isnan(value)
    assert isnan(value) or mean == pytest.approx(value)


def test_a_client_invents_no_metric() -> None:
    told = Validation(3, {"loss": 1.0, "mine": 2.0})
    assert of_names(told, {"loss", "accuracy"}) == Validation(3, {"loss": 1.0})


def test_what_is_not_finite_is_kept(tmp_path: Path) -> None:
    run = trained(tmp_path, "system.number_task:lost_held_back")
    saved = read_run(tmp_path).rounds[0]
    for record in (run.records[0], saved):
        assert isnan(record.client_metrics["loss"])
        assert np.isfinite(record.client_metrics["mae"])
        assert isnan(record.validations["client-1"].metrics["loss"])


def test_a_name_that_few_clients_tell_goes_no_further() -> None:
    """A relay knows no metrics of its own, and must not be made to tell thousands."""
    honest = {f"client-{n}": Validation(4, {"loss": 1.0, "mae": 2.0}) for n in range(3)}
    inventive = Validation(4, {f"mine-{n}": 1.0 for n in range(33)})
    assert told_by_most({**honest, "client-3": inventive}) == {"loss", "mae"}
    assert told_by_most({}) == frozenset()
    # Also where most conspire, there are no more than its server takes.
    conspired = {f"client-{n}": replace(inventive, metrics={
        **{f"ours-{m}": 1.0 for m in range(30)}, **{f"of-{n}-{m}": 1.0 for m in range(3)},
        **{f"some-{m}": 1.0 for m in range(30) if (m + n) % 4},
    }) for n in range(8)}  # fmt: skip
    assert len(told_by_most(conspired)) == 33
