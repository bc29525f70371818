"""Clients that join and send heartbeats and nothing else; heartbeats.py runs it.

    python light_clients.py HOST:PORT TASK COUNT INTERVAL_S

Each has a connection of its own. When the server closes the first stream, prints the longest
delay with which this process itself sent a heartbeat, in seconds.
"""

import asyncio
import sys
from time import monotonic
from typing import Any

import grpc

from fedaq import PROTOCOL_VERSION
from fedaq.codec import model
from fedaq.codec.model import ModelSpec
from fedaq.modules import signature
from fedaq.net.grpc_options import CLIENT_OPTIONS, DIRECT, PATH
from fedaq.tasks import load_task
from fedaq.v1 import federation_pb2 as pb


def join_message(name: str, spec: ModelSpec) -> pb.Join:
    """Return the first message of a client with one example."""
    return pb.Join(
        protocol_version=PROTOCOL_VERSION, client=name, examples=1, model=model.to_message(spec)
    )


async def keep_alive(server: str, join: pb.Join, interval_s: float) -> float:
    """Send heartbeats until the server closes the stream; return the longest delay of one."""
    options = [*CLIENT_OPTIONS, DIRECT, ("grpc.use_local_subchannel_pool", 1)]
    late_s = 0.0
    async with grpc.aio.insecure_channel(server, options=options) as channel:
        call: Any = channel.stream_stream(PATH)()  # type: ignore[call-arg]
        await call.write(pb.ClientMessage(join=join).SerializeToString())
        heartbeat = pb.ClientMessage(heartbeat=pb.Heartbeat()).SerializeToString()
        due = monotonic()
        while not call.done():
            due += interval_s
            await asyncio.sleep(due - monotonic())
            late_s = max(late_s, monotonic() - due)
            try:
                await call.write(heartbeat)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                break
    return late_s


async def main(server: str, task_name: str, count: str, interval_s: str) -> None:
    spec = signature.spec_of(load_task(task_name, None).model())
    joins = [join_message(f"light-{number}", spec) for number in range(int(count))]
    clients = [keep_alive(server, join, float(interval_s)) for join in joins]
    print(max(await asyncio.gather(*clients)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
