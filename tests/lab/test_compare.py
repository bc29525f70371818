"""`fedaq compare`, and the two engines against each other."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedaq.errors import UserError
from fedaq_lab.comparison import run_comparison
from fedaq_lab.comparison_table import Line, costs_of_privacy, short, summarize
from system.commands import Commands


@pytest.mark.parametrize(
    "scheme",
    [["--scheme", "fedaq"], pytest.param(["--set", "energy.budget_j=0.2"], marks=pytest.mark.slow)],
)
def test_both_engines_give_the_same_model_byte_for_byte(
    scheme: Sequence[str], commands: Commands
) -> None:
    options = [*scheme, "--rounds", 4, "--clients", 3, "--seed", 5]
    for engine in ("local", "processes"):
        done = commands.run("run", "--engine", engine, *options, "--out", engine)
        assert done.code == 0, done.err
    folder = commands.folder
    local, processes = (folder / name / "model.safetensors" for name in ("local", "processes"))
    assert local.read_bytes() == processes.read_bytes()
    kept = []
    for name in ("local", "processes"):
        run = json.loads((folder / name / "run.json").read_text())
        for record in run["rounds"]:
            for key in ("seconds", "uplink_wire_bytes", "downlink_wire_bytes"):
                del record[key]
        kept.append(run["rounds"])
    assert kept[0] == kept[1]


def compare(folder: Path, **changes: Any) -> None:
    options: dict[str, Any] = {
        "schemes": ["fixed", "fedaq:fedaq.clip=false"],
        "grid": None,
        "seeds": "1,2",
        "target": 0.3,
        "until_target": False,
        "options": ["--clients=2", "--rounds=3", "--engine=local"],
        "folder": folder,
        "jobs": 2,
    }
    run_comparison(**{**options, **changes})


def test_a_comparison_resumes_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(tmp_path)
    first = (tmp_path / "compare.json").read_text()
    runs = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/seed-*/run.json")}
    assert len(runs) == 4
    # One run never happened and another was cut off in its middle.
    removed, broken, *kept = sorted(runs)
    removed.unlink()
    cut = json.loads(broken.read_text())
    cut.update(finished=False, rounds=cut["rounds"][:1])
    broken.write_text(json.dumps(cut))
    compare(tmp_path)
    assert (tmp_path / "compare.json").read_text() == first
    assert all(path.stat().st_mtime_ns == runs[path] for path in kept)
    assert "2 of 4 runs were done before" in capsys.readouterr().out
    assert all((tmp_path / f"compare-{name}.png").stat().st_size > 5000
               for name in ("accuracy", "bits", "energy"))  # fmt: skip
    with pytest.raises(UserError, match="other options"):
        compare(tmp_path, target=0.5)


def test_until_target_ends_runs_at_the_target(tmp_path: Path) -> None:
    compare(tmp_path, schemes=["fixed"], seeds="1", target=0.11, until_target=True)
    (path,) = tmp_path.glob("*/seed-1/run.json")
    rounds = json.loads(path.read_text())["rounds"]
    assert rounds[-1]["test_accuracy"] >= 0.11
    assert all(record["test_accuracy"] < 0.11 for record in rounds[:-1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": "1,x"}, "--seeds 1,x"),
        ({"grid": "8"}, "--grid 8"),
        ({"schemes": ["fixed:fixed.uplink_bit=2"]}, "did you mean uplink_bits"),
        ({"schemes": ["nothing"]}, "scheme 'nothing' is unknown"),
    ],
)
def test_mistakes_are_told_in_one_line(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        compare(tmp_path / "new", **changes)
    assert "\n" not in str(caught.value)


def run_record(seed: int, accuracies: Sequence[float]) -> dict[str, Any]:
    """Return a ``run.json`` in which every round costs 2 J and 8 bytes."""
    rounds = [
        {
            "round": number,
            "test_accuracy": accuracy,
            "energy_j": 2.0,
            "uplink_payload_bytes": 3,
            "downlink_payload_bytes": 5,
            "uplink_bits": 1.0,
            "downlink_bits": 2.0,
        }
        for number, accuracy in enumerate(accuracies, 1)
    ]
    total = 2.0 * len(rounds)
    return {
        "seed": seed,
        "rounds": rounds,
        "summary": {"final_accuracy": accuracies[-1], "energy_j": total},
    }


def test_energy_to_target_counts_every_round_up_to_the_first_that_reaches_it() -> None:
    runs = (run_record(1, [0.5, 0.9, 0.8]), run_record(2, [0.5, 0.6, 0.7, 0.95]))
    line = summarize([Line("a", runs)], 0.9)["lines"][0]
    assert [seed["energy_j_to_target"] for seed in line["seeds"]] == [4.0, 8.0]
    assert [seed["payload_bytes_to_target"] for seed in line["seeds"]] == [16, 32]
    assert line["energy_j_to_target"] == {"mean": 6.0, "spread": 2.0}
    assert line["rounds_to_target"]["mean"] == 3.0
    assert line["final_accuracy"]["mean"] == pytest.approx(0.875)


def test_a_line_that_misses_the_target_once_has_no_mean() -> None:
    runs = (run_record(1, [0.95]), run_record(2, [0.1]))
    line = summarize([Line("a", runs)], 0.9)["lines"][0]
    assert line["reached"] == 1
    assert line["energy_j_to_target"] is None


def test_short_names_tell_lines_apart() -> None:
    assert short("fedaq") == "fedaq"
    assert short("fixed:fixed.uplink_bits=2,fixed.downlink_bits=4") == "fixed 2 up 4 down"
    assert short("fedaq:energy.budget_j=4.2,rounds=9") == "fedaq, budget_j 4.2, rounds 9"


def test_what_privacy_costs_is_said_beside_the_line_without_it() -> None:
    lines = [
        Line("fedaq", (run_record(1, [0.1, 0.5]),)),
        Line("fedaq:privacy.secure_aggregation=true", (run_record(1, [0.1, 0.2, 0.5]),)),
        Line("fedaq:fedaq.clip=false", (run_record(1, [0.1, 0.5]),)),
        Line("fedaq:fedaq.clip=true,privacy.secure_aggregation=true", (run_record(1, [0.5]),)),
    ]
    [sentence] = costs_of_privacy(summarize(lines, 0.5))
    assert sentence == (
        "privacy.secure_aggregation=true takes 1.50 times the energy of the same without"
    )
    assert costs_of_privacy(summarize(lines[:2], 0.6)) == []
