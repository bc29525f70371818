"""What cannot be had with secure aggregation is refused before anything starts, in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedaq.errors import UserError
from fedaq.settings import load_settings
from fedaq_client.cli.checkup import privacy
from fedaq_client.privacy import Privacy
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run
from privacy.federation import settings_of, task_of


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"capture": True}, "capture=true keeps each update"),
        ({"aggregation": "median"}, "only a mean can be had; aggregation median needs each"),
        ({"aggregation": "rules:mine"}, "only a mean can be had; aggregation rules:mine"),
        ({"scheme": "fixed"}, "on one grid, which scheme fixed has not"),
        ({"scheme": "fp32"}, "on one grid, which scheme fp32 has not"),
        ({"scheme": "schemes:mine"}, "on one grid, which scheme schemes:mine has not"),
        ({"coding.entropy": False}, "coding.entropy=false"),
        ({"coding.common_grid": False}, "coding.common_grid=false"),
        ({"limits.norm_factor": 10}, "limits.norm_factor needs the norm of each update"),
        ({"clients": 2}, "2 clients do not hide each other; 3 do"),
        ({"clients": 9, "clients_per_round": 2}, "2 clients do not hide each other; 3 do"),
    ],
)
def test_settings_that_need_single_updates(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_settings(environment={}, flags={"privacy.secure_aggregation": True, **flags})
    assert sentence in str(refusal.value)
    assert "privacy.secure_aggregation: " in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_common_grid_is_refused_by_its_own_name() -> None:
    with pytest.raises(UserError, match=r"coding\.common_grid: .* which scheme feddq has not"):
        load_settings(environment={}, flags={"coding.common_grid": True, "scheme": "feddq"})


def test_a_task_that_holds_examples_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    try:
        with pytest.raises(UserError, match="holds back examples for metrics of each client"):
            Run(
                settings_of(3),
                ledger,
                lambda record: None,
                replace(task_of(1), validation_share=0.2),
            )
    finally:
        ledger.close()


def test_the_doctor_says_what_masks_need_and_what_is_proved() -> None:
    bare = load_settings(environment={}, flags={"privacy.secure_aggregation": True})
    lacking = privacy(bare, masks=False)
    assert (lacking.verdict, lacking.remedy) == ("wrong", "pip install 'fedaq[client,privacy]'")
    assert privacy(bare, masks=True).verdict == "look"
    proved = load_settings(
        environment={}, flags={"privacy.secure_aggregation": True, "network.tls": "certs"}
    )
    assert privacy(proved, masks=True).verdict == "ok"


def test_a_client_that_must_not_be_seen_leaves_a_server_that_would_see_it() -> None:
    Privacy().check(masked=False, clipped=False)
    Privacy(required=True).check(masked=True, clipped=False)
    Privacy(clipped=True).check(masked=False, clipped=True)
    with pytest.raises(UserError, match=r"^privacy\.epsilon: this client takes part where noise"):
        Privacy(clipped=True).check(masked=True, clipped=False)
    with pytest.raises(UserError, match="the server, which wants to see them"):
        Privacy(required=True).check(masked=False, clipped=True)
