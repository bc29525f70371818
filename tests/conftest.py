"""What every test shares."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fedaq", deadline=None)
settings.load_profile("fedaq")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loops", type=Path, help="another library of the codec's loops")


def pytest_configure(config: pytest.Config) -> None:
    library: Path | None = config.getoption("--loops")
    if library is not None:
        from fedaq.codec import kernels

        kernels.LIBRARY = library
