"""What `fedaq settings` and the shell's completion offer is what there is."""

import os
import subprocess
import sys

import pytest

from fedaq.cli import completion
from fedaq.cli.settings_table import all_settings, show
from fedaq.errors import UserError
from fedaq.settings import Settings, load_settings
from fedaq.settings.run import AGGREGATIONS
from fedaq.tasks import BUILT_IN
from fedaq_server.schemes import loading


def test_every_setting_is_listed_once_with_its_default() -> None:
    listed = {setting.name: setting.default for setting in all_settings()}
    assert len(listed) == len(list(all_settings()))

    def leaves(values: dict[str, object], at: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in values.items():
            if isinstance(value, dict):
                found.update(leaves(value, f"{at}{name}."))
            else:
                found[f"{at}{name}"] = value
        return found

    assert listed == leaves(Settings().model_dump())
    for name, value in listed.items():
        if value is not None and not isinstance(value, bool):
            load_settings(environment={}, assignments=[f"{name}={value}"])


def test_a_word_chooses_and_what_was_changed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show("budget", config=None, assignments=["energy.budget_j=2.5"])
    shown = capsys.readouterr().out
    assert "energy.budget_j" in shown
    assert "2.5" in shown
    assert "network.port" not in shown
    with pytest.raises(UserError, match="no setting has 'teapot'"):
        show("teapot", config=None, assignments=[])


def test_names_offered_are_those_there_are() -> None:
    assert set(completion.TASKS) == set(BUILT_IN)
    assert set(completion.SCHEMES) == set(loading.BUILT_IN)
    assert set(completion.AGGREGATIONS) == set(AGGREGATIONS)
    assert completion.task("fash") == ["fashion-mnist", "fashion-mnist-cnn"]
    assert completion.scheme("fed") == ["feddq", "fedaq"]
    assert "lte-m" in completion.radio("lte")
    assert dict(completion.assignment("energy.bu")) == {
        "energy.budget=": "for the whole run: 8J, 20MB or 3EUR, or several, 8J,20MB",
        "energy.budget_j=": "budget in joules, by its older name",
    }


def test_a_shell_is_offered_values() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedaq"],
        env={
            **os.environ,
            "_FEDAQ_COMPLETE": "complete_bash",
            "COMP_WORDS": "fedaq run --set energy.bu",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["energy.budget=", "energy.budget_j="]
