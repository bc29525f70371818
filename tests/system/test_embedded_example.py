"""The example of a client inside an app."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "embedded"


@pytest.mark.slow
def test_devices_learn_while_they_are_not_busy() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "embedded"],
        cwd=EXAMPLE, capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    rounds = re.findall(r"^round (\d+): accuracy ([\d.]+), (\d) updates(.*)$", ended.stdout, re.M)
    assert [int(number) for number, *_ in rounds] == list(range(1, 13))
    assert float(rounds[-1][1]) > 0.7, ended.stdout
    # Nobody is busy all the time, and somebody is at any.
    assert sum("busy" in declined for *_, declined in rounds) >= 3
    for number in (1, 2, 3):
        took_part = len(re.findall(rf"^device-{number}: round", ended.stdout, re.M))
        assert 3 <= took_part < 12, ended.stdout
        assert f"device-{number}: declined, the machine fails" in ended.stdout
