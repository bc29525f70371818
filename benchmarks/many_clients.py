"""Several clients in one process, each on a connection of its own.

    python many_clients.py HOST:PORT TASK FIRST COUNT

What `fedaq client` does, COUNT times beside each other: for machines whose memory holds
fifty models but not fifty copies of PyTorch.
"""

import asyncio
import sys

import torch

from fedaq.net.grpc_options import CLIENT_OPTIONS
from fedaq.tasks import Task, load_task
from fedaq_client.session import Session
from fedaq_client.training import Learner
from fedaq_client.transport.connection import connect

CONNECT_TIMEOUT_S = 60.0


async def _client(server: str, name: str, task: Task) -> None:
    learner = Learner(task, task.train_data(None))
    async with connect(server, CONNECT_TIMEOUT_S) as link:
        await Session(link, name, learner, None, lambda progress: None).participate()


async def _main(server: str, task_name: str, first: str, count: str) -> None:
    # Channels of one process would share a connection.
    CLIENT_OPTIONS.append(("grpc.use_local_subchannel_pool", 1))
    torch.set_num_threads(1)
    task = load_task(task_name, None)
    numbers = range(int(first), int(first) + int(count))
    await asyncio.gather(*(_client(server, f"client-{number}", task) for number in numbers))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
