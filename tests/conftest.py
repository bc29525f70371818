"""What every test shares."""

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

LONGEST = ("system", "lab", "documents", "browser", "faults", "flower", "fuzz")

settings.register_profile("fedaq", deadline=None)
settings.load_profile("fedaq")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loops", type=Path, help="another library of the codec's loops")


def pytest_configure(config: pytest.Config) -> None:
    library: Path | None = config.getoption("--loops")
    if library is not None:
        from fedaq.codec import kernels

        kernels.LIBRARY = library


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one more than there are cores: many tests wait for processes, or for a deadline."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take longest, so that the workers end together."""
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)


@pytest.fixture
def nothing_goes_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No client makes the server log an error, or lose a task with an exception."""
    with caplog.at_level(logging.WARNING):
        yield
    gc.collect(1)
    errors = [r.getMessage() for r in caplog.records if r.levelno > logging.WARNING]
    # gRPC polls for all event loops of a process, and may wake the closed one of the last test.
    assert [text for text in errors if "PollerCompletionQueue" not in text] == []
