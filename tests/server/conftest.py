"""What the tests of a server with hostile clients share."""

import asyncio

import pytest

from server.attacks import federate, result_of


@pytest.fixture(scope="session")
def honest_result(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the model of a run in which all are honest."""
    folder = tmp_path_factory.mktemp("honest")
    asyncio.run(federate(folder))
    return result_of(folder)
