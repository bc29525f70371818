"""The short form of `make faults`."""

import shutil
import sys
from pathlib import Path

import pytest

from faults.run import Tried, checks, sweep

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="the injector is a library for Linux that cc makes",
)


def test_a_run_with_faults_on_its_files_comes_to_the_same_model(tmp_path: Path) -> None:
    found = sweep(tmp_path, every=61)
    assert [tried for tried in found if tried.wrong] == []
    assert sum(tried.ended for tried in found) > len(found) / 2


def test_what_is_wrong_is_told() -> None:
    good = Tried("write /a", "no room", ended=True, wrong="")
    bad = Tried("write /b", "no room", ended=False, wrong="another model")
    group, everything = checks([good, bad])
    assert not group.holds
    assert not everything.holds
    assert "1 wrong, first write /b, no room: another model" in group.found
