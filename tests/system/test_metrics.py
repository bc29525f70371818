"""A task whose metric is no accuracy, from its test to all that is shown of it."""

import asyncio
import json
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from fedaq.errors import FedaqError, UserError
from fedaq_lab.comparison import run_comparison
from fedaq_lab.local import federate, run_local
from fedaq_lab.report_page import write_report
from fedaq_server.dashboard.runs import PastRuns
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.picture import draw_run
from fedaq_server.records.saved import read_run
from fedaq_server.records.tracking import metrics
from fedaq_server.run import Run
from fedaq_server.schemes.scheme import Outcome
from system.live import settings_of


def trained(folder: Path, task: str = "task", **flags: Any) -> Run:
    settings = settings_of(2, task=f"system.number_task:{task}", **{"rounds": 4, **flags})
    run = Run(settings, Ledger(folder), lambda record: None)
    asyncio.run(federate(run))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "number"
    folder.mkdir()
    return trained(folder)


def test_the_record_has_all_that_the_test_gave(run: Run) -> None:
    saved = read_run(run.folder)
    assert asdict(saved.metric) == {"name": "mae", "higher_is_better": False}
    assert all(set(record.test_metrics) == {"mae", "r2"} for record in saved.rounds)
    assert all(isnan(record.test_accuracy) for record in saved.rounds)
    errors = [record.value("mae") for record in saved.rounds]
    assert [record.value("mae") for record in run.records] == errors
    document = json.loads((run.folder / "run.json").read_text())
    summary = document["summary"]
    assert (summary["final_metric"], summary["best_metric"]) == (errors[-1], min(errors))
    assert (summary["final_accuracy"], document["rounds"][0]["test_accuracy"]) == (None, None)


def test_it_is_exposed_tracked_and_drawn_by_its_name(run: Run) -> None:
    last = run.records[-1]
    text = generate_latest(run.metrics.registry).decode()
    for name in ("mae", "r2"):
        assert f'fedaq_test_metric{{name="{name}"}} {last.value(name)}' in text
    *_, (number, values) = metrics(run.records)
    assert (number, values["test_mae"], values["test_r2"]) == (
        4,
        last.value("mae"),
        last.value("r2"),
    )
    assert "test_accuracy" not in values
    assert draw_run(run.folder).stat().st_size > 5000


def test_a_page_of_past_runs_shows_it(run: Run) -> None:
    past = PastRuns(run.folder.parent)
    (summary,) = past.summaries()
    assert summary["metric"] == {"name": "mae", "higher_is_better": False}
    assert summary["value"] == pytest.approx(run.records[-1].value("mae"), rel=1e-4)
    whole = past.run(summary["id"])
    assert whole is not None
    assert len(whole["points"]) == 4


def test_a_report_shows_every_metric(run: Run, tmp_path: Path) -> None:
    page, pictures = write_report([run.folder], tmp_path / "report")
    text = page.read_text()
    assert {"mae.png", "mae-energy.png"} <= {picture.name for picture in pictures}
    for heading in ("<dt>mae</dt>", "<dt>r2</dt>", "Test mae for the energy spent"):
        assert heading in text
    assert "Test accuracy" not in text
    assert "<dt>accuracy" not in text


def test_a_run_ends_at_its_target_which_is_below(run: Run, tmp_path: Path) -> None:
    errors = [record.value("mae") for record in run.records]
    assert errors == sorted(errors, reverse=True)
    stopped = trained(tmp_path, target=(errors[1] + errors[2]) / 2)
    assert [record.value("mae") for record in stopped.records] == errors[:3]
    (tmp_path / "other").mkdir()
    settings = settings_of(2, task="system.number_task:task", target_accuracy=0.5)
    ledger = Ledger(tmp_path / "other")
    with pytest.raises(UserError, match="metric of task number is mae; write target"):
        Run(settings, ledger, lambda record: None)
    with pytest.raises(UserError, match="two names of one thing"):
        settings_of(2, target=0.5, target_accuracy=0.5)


def test_no_metric_but_the_loss(tmp_path: Path) -> None:
    run = trained(tmp_path, "loss_only", rounds=2)
    saved = read_run(tmp_path)
    assert [record.test_metrics for record in saved.rounds] == [{}, {}]
    summary = json.loads((tmp_path / "run.json").read_text())["summary"]
    assert summary["final_metric"] == run.records[-1].test_loss
    write_report([tmp_path], tmp_path / "report")


def test_schemes_are_told_of_it() -> None:
    """An `Outcome` of before, without metrics, can still be made."""
    assert Outcome(1, 0.5, 1.0, 1.0, {}, 0.1, {}).test_metrics == {}


def test_a_comparison_to_a_target_that_is_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    options = ["--task=system.number_task:task", "--clients=2", "--rounds=4", "--engine=local"]
    run_comparison(
        schemes=["fp32", "fixed:fixed.uplink_bits=2,fixed.downlink_bits=2"], grid=None, seeds="1",
        target=1.2, until_target=True, options=options, folder=tmp_path / "compared", jobs=2,
    )  # fmt: skip
    compared = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert compared["metric"] == {"name": "mae", "higher_is_better": False}
    exact = next(line for line in compared["lines"] if line["name"] == "fp32")
    assert exact["energy_j_to_target"] is not None
    assert exact["final_metric"]["mean"] <= 1.2
    assert "final_accuracy" not in exact
    for line in compared["lines"]:
        points = [point[1] for seed in line["seeds"] for point in seed["curve"]]
        assert all(value > 1.2 for value in points[:-1])
    assert "to test mae 1.2" in capsys.readouterr().out
    page, _ = write_report([tmp_path / "compared"], tmp_path / "report")
    assert "Energy to mae 1.2" in page.read_text()


# ---- Not finite ----------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_said_at_once_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    flags = {"task": "system.number_task:lost", "clients": 2, "rounds": 3, "scheme": "fp32"}
    with pytest.raises(FedaqError, match="of its last model the test loss is NaN; every"):
        run_local(config=None, out=tmp_path / "run", flags=flags, assignments=[])
    said = [record.getMessage() for record in caplog.records]
    assert said == ["round 1: the test loss is NaN; every tensor of the model is finite"]
    shown = capsys.readouterr().out
    for number in (1, 2, 3):
        assert f"round {number}/3  mae " in shown
    assert shown.count("test loss NaN  bits") == 3
    assert "not finite in 3 of 3 rounds, the last of them round 3: the test loss is NaN" in shown
    saved = read_run(tmp_path / "run")
    assert saved.finished
    page, _ = write_report([tmp_path / "run"], tmp_path / "report")
    assert "not finite in 3 of 3 rounds; in round 3 the test loss is NaN" in page.read_text()


def test_tensors_that_are_not_finite_are_named_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trained(tmp_path, "spoilt", rounds=1, scheme="fp32")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["round 1: the test loss is NaN; not finite in the model: bad"]
    assert read_run(tmp_path).rounds[0].not_finite == ("bad",)
    run.ledger.close()
    (record,) = Ledger(tmp_path).records()
    assert record.not_finite == ("bad",)
    assert isnan(record.test_loss)
    assert set(record.test_metrics) == {"mae", "r2"}
