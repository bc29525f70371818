"""What people are shown of the budget of epsilon: on the terminal, the page, a report, a check."""

from pathlib import Path
from typing import Any

import pytest

import fedaq
from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq_lab.report_page import write_report
from fedaq_server.cli.checkup import privacy
from fedaq_server.cli.display import Display, facts_of
from fedaq_server.dashboard.live import POINT_FIELDS, Sums
from fedaq_server.records.result import Result


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("private") / "run"
    return fedaq.run(
        "digits", clients=4, rounds=2, out=folder, progress=False, privacy={"epsilon": 40.0}
    )


def test_the_table_at_the_end_has_epsilon_where_others_have_the_loss(private: Result) -> None:
    display = Display(load_settings(environment={}), 0, 0.0)
    with console.capture() as captured:
        display.summary(2, private.rounds, {}, private.record.privacy)
    shown = captured.get()
    assert "epsilon" in shown
    assert "train" not in shown
    assert "epsilon: 40 of 40 for delta 1e-05; noise 0.2" in shown
    last = facts_of(private.rounds[-1], private.metric, 1.0)
    assert last.endswith("epsilon 40")


def test_the_page_is_told_of_it_round_by_round(private: Result) -> None:
    sums, at = Sums("accuracy"), POINT_FIELDS.index("epsilon")
    spent = [sums.point(vars(record))[at] for record in private.rounds]
    assert spent == [pytest.approx(record.epsilon, rel=1e-4) for record in private.rounds]
    script = Path(fedaq.__file__).parents[2] / "server/fedaq_server/dashboard/static/ui.js"
    fields = script.read_text().partition("const FIELDS = [")[2].partition("]")[0]
    assert [each.strip(' "\n') for each in fields.split(",")] == list(POINT_FIELDS)


def test_a_report_has_it_among_the_budgets(private: Result, tmp_path: Path) -> None:
    assert private.folder is not None
    page, _ = write_report([private.folder], tmp_path)
    assert "run: epsilon: 40 of 40 for delta 1e-05; noise" in page.read_text()


def test_a_notebook_shows_it(private: Result) -> None:
    assert "epsilon</th><td>40 of 40 for delta 1e-05</td>" in private._repr_html_()


def test_a_program_has_it_in_the_table_of_rounds(private: Result) -> None:
    assert [each.flat()["epsilon"] for each in private.rounds] == [
        record.epsilon for record in private.rounds
    ]


@pytest.mark.parametrize(
    ("flags", "verdict", "says"),
    [
        ({"clients": 1000}, "look", "the server adds it, and sees each update"),
        ({"clients": 1000, "privacy.secure_aggregation": True}, "ok", "each client adds its share"),
        ({"clients": 10}, "look", "as long as the longest update"),
        ({"privacy.epsilon": 1e-4}, "wrong", "is the least; run fewer rounds"),
    ],
)
def test_the_doctor_says_what_the_noise_does(
    flags: dict[str, Any], verdict: str, says: str
) -> None:
    settings = load_settings(environment={}, flags={"privacy.epsilon": 8.0, **flags})
    found = privacy(settings, 17_226)
    assert found.verdict == verdict
    assert says in found.says
