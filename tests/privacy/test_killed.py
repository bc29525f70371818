"""Processes of clients, a third of which are killed at every step in turn: each sum is right."""

import asyncio
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fedaq.codec.quantizer import Floats
from fedaq_server.records.ledger import Committed, Ledger
from fedaq_server.run import Run
from fedaq_server.schemes.scheme import Plan
from fedaq_server.serve import serve
from privacy.federation import settings_of, task_of
from privacy.steps import STEPS

CLIENTS, VICTIMS = 6, (2, 5)
LIMIT_S = 200.0


async def _federate(folder: Path) -> tuple[list[set[str]], list[Floats]]:
    """Return who counted in each round, and the model after it."""
    settings = settings_of(
        CLIENTS, rounds=len(STEPS), network__return_wait_s=90.0, network__join_timeout_s=300.0
    )
    counted: list[set[str]] = []
    models: list[Floats] = []
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with closing(Ledger(folder)) as ledger:
        run = Run(settings, ledger, lambda record: None, task_of(0))

        def commit(committed: Committed, plan: Plan) -> None:
            up = [each for each in committed.transfers if each.direction == "uplink"]
            counted.append({each.client for each in up if each.counted})
            models.append(run.federation.model.copy())

        run.on_commit = commit
        server = asyncio.create_task(serve(run, port.set_result))
        line = [sys.executable, Path(__file__).with_name("mortal.py"), f"127.0.0.1:{await port}"]
        clients = await asyncio.create_subprocess_exec(
            *map(str, (*line, CLIENTS, *VICTIMS)), start_new_session=True
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                await server
                await clients.wait()
        finally:
            server.cancel()
            if clients.returncode is None:
                # The session that was started above, and nobody else.
                os.killpg(clients.pid, signal.SIGKILL)
                await clients.wait()
    return counted, models


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes that fork")
def test_every_round_has_the_sum_of_those_whose_updates_came(tmp_path: Path) -> None:
    counted, models = asyncio.run(_federate(tmp_path))
    everyone = {f"client-{number}" for number in range(1, CLIENTS + 1)}
    victims = {f"client-{number}" for number in VICTIMS}
    # Whoever dies before it has sent keys may come back to the same round, and dies there again.
    at_the_end = [step == "unmasking" for step in STEPS[1:]] + [True]
    assert counted == [everyone if late else everyone - victims for late in at_the_end]
    value = 1.0
    for names, model in zip(counted, models, strict=True):
        numbers = [int(name.removeprefix("client-")) for name in names]
        value += sum(numbers) / len(numbers) / 8
        np.testing.assert_allclose(model, value, rtol=1e-6)
