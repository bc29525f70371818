"""Clients whose training costs nothing, many in one process; fleet.py runs it.

    python load_clients.py HOST:PORT TASK FIRST COUNT AT_ONCE

Each has a connection of its own and does all that `fedaq client` does, with the same code, but for
the training: its update is noise that follows from its name and the round. AT_ONCE of them hold a
model in memory at a time, as the population of a simulation does; what the others hold is
kept once for all that hold the same.
"""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fedaq.codec.quantizer import Floats, derive_seed
from fedaq.net.grpc_options import CLIENT_OPTIONS
from fedaq.tasks import load_task
from fedaq.tasks.state import State
from fedaq_client.returning import CONNECT_S, take_part
from fedaq_client.sharing import Share
from fedaq_client.training import Learner, Work
from fedaq_client.transport.access import PLAIN
from fedaq_client.transport.connection import in_turn
from fedaq_lab.population import Population

# As wide as updates of a classifier are after a few rounds.
DEVIATION = 0.01
ON_DISK = "load-clients"


class NoiseLearner(Learner):
    """A learner whose update is a part of a long row of noise, begun at a place of its own."""

    noise: Floats

    def work(self, work: Work, progress: Callable[[int, int], None]) -> tuple[float, State]:
        """Leave an update in `weights` that no other client has."""
        start = work.seed % self.weights.size
        np.copyto(self.weights, self.noise[start : start + self.weights.size])
        return 1.0, {}


async def main(server: str, task_name: str, first: int, count: int, at_once: int) -> None:
    # Channels of one process would share a connection.
    CLIENT_OPTIONS.append(("grpc.use_local_subchannel_pool", 1))
    torch.set_num_threads(1)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    task = load_task(task_name, None)
    # Of the seed that runs have, else all would be sent the whole model first.
    learners = [NoiseLearner(task, task.train_data(None), seed=1) for _ in range(at_once)]
    drawn = np.random.default_rng(derive_seed(first, "noise"))
    noise = drawn.standard_normal(2 * learners[0].weights.size, np.float32) * DEVIATION
    for learner in learners:
        learner.noise = noise
    with TemporaryDirectory(prefix=ON_DISK) as folder:
        population = Population(learners, [Share(None)] * count, Path(folder))
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(
                    take_part(
                        in_turn([(server, PLAIN)], CONNECT_S), f"load-{first + number}",
                        learners[0], None, lambda event: None, None,
                        turn=partial(population.turn, number),
                    )
                )  # fmt: skip
        population.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
