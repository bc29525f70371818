"""What several tests of `fedaq` share."""

from collections.abc import Iterator

import pytest
import torch

from fedaq.codec import kernels


@pytest.fixture(scope="module", params=kernels.levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run every test with the loops of each level that this processor has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_loops", lambda: kernels.at_level(request.param))
        yield request.param


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as clients and server do
    yield
    torch.set_num_threads(threads)
