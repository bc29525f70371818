"""The short form of `make chaos`."""

import asyncio

import pytest
from rich.console import Console

from chaos.run import Options, both


@pytest.mark.slow
def test_a_federation_in_chaos_keeps_its_promises() -> None:
    options = Options(clients=3, rounds=4, server_kills=1, seed=2)
    found = asyncio.run(both(options, Console()))
    assert [check for check in found if not check.holds] == []
