"""What the tests with real processes share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from system.commands import Commands


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """`fedaq` in an empty folder."""
    started = Commands(tmp_path)
    yield started
    started.kill()


@pytest.fixture(scope="module")
def lasting_commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """`fedaq` in a folder that all tests of a module share."""
    started = Commands(tmp_path_factory.mktemp("commands"))
    yield started
    started.kill()
