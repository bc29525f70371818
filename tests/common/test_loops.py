"""``loops.ll`` is what numba makes of the loops."""

import subprocess
import sys
from pathlib import Path

import pytest

import emit

STALE = "loops.ll is not what loops/ says: run `make loops`"
_, SOURCES, TOOLS = emit.heading().splitlines()


def on_file() -> list[str]:
    return emit.FILE.read_text().splitlines()


def test_the_text_on_file_was_made_from_these_sources() -> None:
    assert SOURCES in on_file(), STALE


@pytest.mark.skipif(TOOLS not in on_file(), reason="other tools than those that loops.ll names")
def test_the_text_on_file_is_what_is_made_of_them_now(tmp_path: Path) -> None:
    subprocess.run([sys.executable, Path(emit.__file__), tmp_path / "loops.ll"], check=True)
    assert (tmp_path / "loops.ll").read_bytes() == emit.FILE.read_bytes(), STALE


def test_the_text_names_no_processor_and_no_python() -> None:
    text = "\n".join(on_file()[len(emit.heading().splitlines()) :])
    assert "@unpack_dequantize" in text
    for word in ("target", "x86", "avx", "inttoptr", "numba", "Py", "NRT"):
        assert word not in text
