"""The model that a round begins with, as it arrives."""

import asyncio
from collections.abc import Awaitable, Callable

from fedaq.codec import coding, headers, holding
from fedaq.codec.chunks import Chunk, expected
from fedaq.errors import FedaqError
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.training import Learner

Expect = Callable[[str], Awaitable[pb.ServerMessage | Chunk]]


async def receive_model(
    learner: Learner,
    expect: Expect,
    holds: Callable[[], bytes],
    forget: Callable[[], None],
    on_transfer: Callable[[bool, int, int], None],
) -> float:
    """Receive a model, or what the held one lacks of it; return the bits per value.

    Parameters
    ----------
    learner : Learner
    expect : callable
        Returns the next message if it is of this kind.
    holds : callable
        Returns the digest of the model that is held.
    forget : callable
        Told that it is about to change, or has.
    on_transfer : callable
        As of a `Session`.
    """
    message = (await expected(expect, "model")).model
    header = headers.from_message(learner.spec, message)
    coded, received, sent_bytes = [], 0, header.header_bytes
    if not message.base:
        forget()
        coding.write_zeros(header, learner.held)
        learner.past.noted.fill(0)
    while received < header.code_bytes:
        chunk = await expected(expect, "chunk")
        if (
            chunk.offset != received
            or chunk.size == 0
            or received + chunk.size > header.code_bytes
            or len(chunk.data) > chunk.size
        ):
            raise FedaqError("the server sent a chunk of the model out of place")
        received += chunk.size
        sent_bytes += chunk.cost_bytes
        on_transfer(True, received, header.code_bytes)
        if message.base:
            # Half a difference would leave a model that nobody knows.
            coded.append(chunk)
        else:
            # Here, not in a thread: decoding a chunk takes less time than handing it over,
            # and gRPC receives the next one meanwhile on threads of its own.
            holding.decode_whole(header, chunk, learner.held, learner.past)

    def add() -> None:
        """Add a difference, unless it was added already or belongs to another model."""
        if message.base == holds():
            learner.add(header, coded)
            forget()

    if message.base:
        await asyncio.to_thread(add)
    return header.sent_bits(sent_bytes)
