"""examples/lora as it is run: processes of its own, of which adapters travel and nothing else."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kinds.others import has

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "lora"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def example_there(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = [package for package in ("peft", "transformers") if not has(package)]
    if lacks and "REQUIRE_KINDS" not in os.environ:
        pytest.skip(f"{', '.join(lacks)}: not installed, `make kinds` does it")
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLE}{os.pathsep}{ROOT / 'tests'}")
    monkeypatch.syspath_prepend(str(EXAMPLE))


def test_adapters_learn_and_nothing_else_travels(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedaq", "run", "--task", "kinds.lora_example:task"]
    options = ["--clients", "2", "--rounds", "6", "--out", str(tmp_path / "run"), "--quiet"]
    subprocess.run([*command, *options], check=True, timeout=500)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    from kinds.lora_example import task

    sizes = [(weight.numel(), weight.requires_grad) for weight in task.model().parameters()]
    whole_bytes = 4 * sum(values for values, _ in sizes)
    assert run["parameters"] == sum(values for values, is_trained in sizes if is_trained)
    for each in run["rounds"]:
        assert each["clients"] == 2
        assert each["uplink_payload_bytes"] <= 0.01 * 2 * whole_bytes
        assert each["downlink_payload_bytes"] <= 0.01 * 2 * whole_bytes
    perplexity = [each["test_metrics"]["perplexity"] for each in run["rounds"]]
    before = task.evaluate(task.model(), task.test_data(None)).metrics["perplexity"]
    assert perplexity[-1] < perplexity[0] < before
    assert perplexity[-1] < before / 3


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told as Linux does")
def test_the_server_has_one_base_and_two_copies_of_the_adapters() -> None:
    importlib.import_module("kinds.lora_example")
    from lora.measure import measured

    found = measured("kinds.lora_example")
    # Peaks of equal runs differ by a percent.
    assert found.above["server"] <= 1.02 * 4 * (found.base + 2 * found.trained)
    assert max(found.uplink) <= 0.01 * 4 * found.base
