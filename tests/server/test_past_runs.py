"""What the page says of past runs, which lie in folders and may be anything."""

import gzip
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedaq_server.dashboard import runs
from fedaq_server.dashboard.runs import PastRuns
from server.pages import ask, page_of


def document(**changes: Any) -> dict[str, Any]:
    """Return a ``run.json`` of two rounds."""
    rounds = [
        {
            "round": number, "test_accuracy": 0.5 + number / 10, "test_loss": 1.0,
            "train_loss": None, "uplink_bits": 1.0, "downlink_bits": 2.0,
            "uplink_payload_bytes": 10, "downlink_payload_bytes": 20, "energy_j": 0.25,
            "clients": 5, "left_out": 0, "seconds": 0.1,
        }
        for number in (1, 2)
    ]  # fmt: skip
    return {
        "finished": True, "task": "digits", "scheme": "fedaq", "seed": 1, "clients": 5,
        "settings": {"rounds": 2, "data": None, "energy": {"budget_j": 2.0}}, "rounds": rounds,
        **changes,
    }  # fmt: skip


def write(folder: Path, content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "run.json").write_text(text)


def test_runs_are_found_in_a_folder_and_in_comparisons(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "first", document())
    write(tmp_path / "runs" / "compare" / "fixed" / "seed-1", document(scheme="fixed"))
    write(tmp_path / "runs" / "a" / "b" / "c" / "too-deep", document())
    write(tmp_path / "runs" / ".hidden", document())
    write(tmp_path / "elsewhere", document())
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "linked").mkdir()
    (tmp_path / "runs" / "linked" / "run.json").symlink_to(tmp_path / "elsewhere" / "run.json")
    runs = PastRuns(tmp_path / "runs")
    assert {run["id"] for run in runs.summaries()} == {"first", "compare/fixed/seed-1"}
    run = runs.run("compare/fixed/seed-1")
    assert run is not None
    assert run["points"][-1] == (2, 0.7, 1.0, None, 1.0, 2.0, 0.5, 20, 40, 5, 0, 0.1, 0.0)
    assert run["settings"] == {"rounds": "2", "data": "-", "energy.budget_j": "2.0"}
    (only,) = PastRuns(tmp_path / "runs" / "first").summaries()
    assert only["id"] == "first"


def test_what_is_no_run_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "right", document())
    wrong: dict[str, Any] = {
        "no-json": "{", "a-list": [], "nothing": {}, "nested": "[" * 100_000,
        "text": document(rounds=[{"round": "x"}]), "no-settings": document(settings=None),
        "no-rounds": document(rounds=None), "words": document(clients="many"),
    }  # fmt: skip
    for name, content in wrong.items():
        write(tmp_path / name, content)
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "run.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder" / "run.json").mkdir(parents=True)
    runs = PastRuns(tmp_path)
    assert [run["id"] for run in runs.summaries()] == ["right"]
    assert runs.run("no-json") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": float("inf")}, {"clients": float("nan")},
        *(
            {"rounds": [{**document()["rounds"][0], name: value}]}
            for name, value in (
                ("energy_j", 10**400), ("test_loss", 10**400), ("seconds", [1]),
                ("uplink_payload_bytes", float("nan")), ("uplink_payload_bytes", float("inf")),
            )
        ),
    ],
)  # fmt: skip
def test_a_run_of_no_real_numbers_is_left_out(changes: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "right", document())
    write(tmp_path / "wrong", document(**changes))
    with page_of(tmp_path) as page:
        assert [run["id"] for run in json.loads(ask(page, "/api/runs").body)] == ["right"]
        assert ask(page, "/api/runs/wrong").status == 404


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    settings = {"rounds": 2, "\ud800": "\ud800"}
    write(
        tmp_path / os.fsdecode(b"n\xff"),
        document(task="\ud800", scheme="x\ud800", settings=settings),
    )
    with page_of(tmp_path) as page:
        (run,) = json.loads(ask(page, "/api/runs").body)
        assert (run["id"], run["task"], run["scheme"]) == ("n?", "?", "x?")
        whole = json.loads(ask(page, "/api/runs/n%3F").body)
    assert whole["settings"] == {"rounds": "2", "?": "?"}


def test_runs_are_read_one_at_a_time_and_once_and_not_if_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "first", document())
    write(tmp_path / "large", json.dumps(document()) + " " * runs.MOST_BYTES)
    os.utime(tmp_path / "large" / "run.json", (0, 2_000_000_000))  # the list looks at it first
    reading, at_once, times = 0, 0, 0

    def loads(text: bytes) -> Any:
        nonlocal reading, at_once, times
        reading, times = reading + 1, times + 1
        at_once = max(at_once, reading)
        time.sleep(0.1)
        reading -= 1
        return json.loads(text)

    monkeypatch.setattr(runs, "json", SimpleNamespace(loads=loads))
    past = PastRuns(tmp_path)
    askers = [threading.Thread(target=past.run, args=("first",)) for _ in range(8)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    assert [run["id"] for run in past.summaries()] == ["first"]
    assert (at_once, times) == (1, 1)


def test_a_run_that_goes_on_is_read_again(tmp_path: Path) -> None:
    write(tmp_path / "live", document(rounds=[], finished=False))
    runs = PastRuns(tmp_path)
    (before,) = runs.summaries()
    assert (before["rounds"], before["value"], before["finished"]) == (0, None, False)
    write(tmp_path / "live", document())
    os.utime(tmp_path / "live" / "run.json", (0, 2_000_000_000))
    (after,) = runs.summaries()
    assert (after["rounds"], after["value"], after["energy_j"]) == (2, 0.7, 0.5)


def test_past_runs_over_http(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "a b" / "ü", document(task="<b>" * 100))
    write(tmp_path / "secret", document())
    with page_of(tmp_path / "runs") as page:
        (summary,) = json.loads(ask(page, "/api/runs").body)
        assert summary["id"] == "a b/ü"
        assert summary["task"] == ("<b>" * 100)[:100]
        answer = ask(page, "/api/runs/a%20b/%C3%BC", {"Accept-Encoding": "gzip"})
        assert json.loads(gzip.decompress(answer.body))["id"] == "a b/ü"
        for path in ("../secret", "..%2Fsecret", "a%20b", "", "%00", "/etc/passwd"):
            assert ask(page, f"/api/runs/{path}").status == 404
        assert ask(page, "/events").status == 404
        assert b"data-live" not in ask(page, "/").body
