"""What the garbage collector and the C library are told."""

import gc
import subprocess
import sys

import pytest

from fedaq.process.memory import all_so_far_kept


def test_what_was_there_before_is_left_alone_and_given_back() -> None:
    before = gc.get_freeze_count()
    with all_so_far_kept():
        assert gc.get_freeze_count() > 10_000
        mine: list[object] = [object()]
        assert any(mine is other for other in gc.get_objects())
    assert gc.get_freeze_count() == before == 0


def test_it_is_given_back_after_a_failure() -> None:
    with pytest.raises(ValueError, match="wrong"), all_so_far_kept():
        raise ValueError("wrong")
    assert gc.get_freeze_count() == 0


# Small blocks that last lie behind large ones that do not. One of 30 MB, freed before, makes glibc
# keep large ones like small ones.
HELD = """
import contextlib, sys
import psutil
from fedaq.process.memory import given_back
bytearray(30 * 2**20)
before = psutil.Process().memory_info().rss
with given_back() if sys.argv[1] == "back" else contextlib.nullcontext():
    blocks, lasting = [], []
    for _ in range(50):
        blocks.append(bytearray(b"x" * 2**20))
        lasting.append(bytearray(b"x" * 100_000))
    del blocks
print((psutil.Process().memory_info().rss - before) // 2**20)
"""


def grown_by(way: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", HELD, way]))


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_what_a_test_of_a_model_took_goes_back_to_the_system() -> None:
    assert grown_by("kept") > 40
    assert grown_by("back") < 15
