"""A short form of `make fuzz`."""

import subprocess
import sys
from pathlib import Path

import pytest

MESSAGES = 2000
PATIENCE_S = 240


def test_mutated_messages_end_neither_decoder_nor_server() -> None:
    pytest.importorskip("atheris")  # not for every system
    command = [sys.executable, str(Path(__file__).with_name("run.py"))]
    ended = subprocess.run(
        [*command, "--messages", str(MESSAGES)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert all(
        f"{kind}, {scheme}: " in ended.stdout
        for kind in ("conversations", "streams", "connections")
        for scheme in ("fedaq", "fixed")
    )
