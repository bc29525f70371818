"""A task's steps as a run takes them: on a thread, with an event loop and gRPC beside it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import grpc

from fedaq.net.grpc_options import DIRECT

T = TypeVar("T")


def in_a_round(function: Callable[..., T], *arguments: object) -> T:
    """Call a function where a round would: what gRPC's threads or a thread break, breaks here."""
    return asyncio.run(_beside_grpc(function, *arguments))


async def _beside_grpc(function: Callable[..., T], *arguments: object) -> T:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [DIRECT]) as channel:
            await channel.channel_ready()
            return await asyncio.to_thread(function, *arguments)
    finally:
        await server.stop(None)
