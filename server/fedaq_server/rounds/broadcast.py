"""What goes down to every client: encoded once, the same immutable bytes for all."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from fedaq.codec import coding, payload, statistics
from fedaq.codec.coding import Content
from fedaq.codec.given import Past, values_of
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats
from fedaq.v1 import federation_pb2 as pb

# By how much steps are widened at a time, and how often, where what goes down is to stay within a
# limit. Clients that get nothing train from an old model.
COARSENING, COARSENINGS = 1.1, 36


@dataclass(frozen=True)
class Frame:
    """A chunk on its way down.

    Attributes
    ----------
    message : bytes
        The serialized server message that it is in.
    cost_bytes : int
        What energy is charged for.
    content : list of (Piece, Codes)
        The codes in it, if they are needed once more when the round is over.
    past : bytes
        What clients know of the values (`Past.packed`), if that is to be captured.
    """

    message: bytes
    cost_bytes: int
    content: Content
    past: bytes = b""


@dataclass(frozen=True)
class Broadcast:
    """A coded model or difference: serialized messages, ready to be written.

    Attributes
    ----------
    payload : Payload
    header : bytes
        The message that announces it.
    frames : tuple of Future of Frame
        The messages that carry it, each there as soon as it is coded.
    """

    payload: Payload
    header: bytes
    frames: tuple[asyncio.Future[Frame], ...]

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield the messages in their order, each as soon as it is coded."""
        yield self.header
        for frame in self.frames:
            if not frame.done():
                # A client that is given up must not cancel what all others wait for.
                await asyncio.shield(frame)
            yield frame.result().message

    async def coded(self) -> list[Frame]:
        """Wait until all is coded and return it: the model may change from then on."""
        return list(await asyncio.gather(*map(asyncio.shield, self.frames)))

    async def payload_bytes(self) -> int:
        """Wait until all is coded and return what it costs to send once."""
        return self.payload.header_bytes + sum(frame.cost_bytes for frame in await self.coded())


@dataclass(frozen=True)
class Source:
    """What is to be sent.

    Attributes
    ----------
    values_at : callable
        Returns the float32 values at a slice of the flat array of all tensors.
    seed, round : int
    base : bytes
        Of a difference: digest of the model that it is added to. It is rounded to the nearest
        codes, since what that loses is in the next difference.
    squeeze : bool
        Entropy-code it where that is shorter.
    chunk_bytes : int
    use : callable, optional
        Takes the codes of each chunk as soon as it is certain that they are sent; until then they
        are not kept. Values at their places are not asked for again.
    past : Past, optional
        Of a difference: what clients know of the values.
    capture : bool
        Keep what they know with each chunk.
    held : float32, shape (statistics,), optional
        Of a difference: the statistics that clients hold.
    """

    values_at: Callable[[slice], Floats]
    seed: int
    round: int
    base: bytes
    squeeze: bool
    chunk_bytes: int
    use: Callable[[Payload, Content], None] | None
    past: Past | None = None
    capture: bool = False
    held: Floats | None = None

    def chunks(self, header: Payload) -> list[Callable[[], Frame]]:
        """Return a piece of work for each chunk."""
        keys = payload.transfer_keys(header.spec, self.seed, "downlink", self.round)
        values_at = self.values_at
        if self.held is not None:
            values_at = statistics.kept_high(header, values_at, self.held)

        def encode(offset: int, length: int) -> Frame:
            chunk, content = coding.encode(
                header, values_at, keys, offset, length, self.round,
                squeeze=self.squeeze, nearest=bool(self.base), known=self.past,
            )  # fmt: skip
            message, past = chunk.frame(pb.ServerMessage), b""
            if self.past is not None and self.capture:
                past = self.past.packed(values_of(header, header.pieces(offset, length)))
            if not chunk.code_bytes:
                # Packed codes are in memory once: where the message has them.
                content = coding.decode(header, chunk.inside(message))
            return Frame(message, chunk.cost_bytes, content, past)

        return [
            lambda span=span: encode(*span)  # type: ignore[misc]
            for span in header.chunks(self.chunk_bytes)
        ]

    def sent(self, header: Payload, frame: Frame) -> Frame:
        """Return what is left of a chunk now that it is certain to be sent."""
        if self.use is None:
            return frame
        self.use(header, frame.content)
        return replace(frame, content=[])


async def begin_broadcast(
    header: Payload, source: Source, limit_bytes: int | None, worker: Executor
) -> Broadcast:
    """Let the worker code the source, chunk by chunk, once for all clients.

    With a limit, all is coded before this returns, with coarser steps than those of `header`
    if it would be longer.
    """
    loop = asyncio.get_running_loop()
    frames: tuple[asyncio.Future[Frame], ...]
    if limit_bytes is None:

        def code(work: Callable[[], Frame]) -> Frame:
            return source.sent(header, work())

        frames = tuple(loop.run_in_executor(worker, code, work) for work in source.chunks(header))
    else:
        header, coded = await loop.run_in_executor(
            worker, _code_within, header, source, limit_bytes
        )
        frames = tuple(loop.create_future() for _ in coded)
        for future, frame in zip(frames, coded, strict=True):
            future.set_result(frame)
    announcement = pb.ServerMessage(model=payload.to_message(header, source.round, source.base))
    return Broadcast(header, announcement.SerializeToString(), frames)


def _code_within(header: Payload, source: Source, limit_bytes: int) -> tuple[Payload, list[Frame]]:
    coarser, coded = coding.within(
        header,
        limit_bytes,
        lambda tried: [work() for work in source.chunks(tried)],
        COARSENING,
        COARSENINGS,
    )
    return coarser, [source.sent(coarser, frame) for frame in coded]


def broadcast_values(header: Payload, frames: list[Frame]) -> Iterator[tuple[slice, Floats]]:
    """Yield the model as the clients receive it, ``Q(w_k)``, part by part in order."""
    position = 0
    for frame in frames:
        for piece, codes in frame.content:
            part, values = header.place(piece), np.empty(piece.values, np.float32)
            codes.dequantize(values)
            yield from _zeros(position, part.start)
            yield part, values
            position = part.stop
    yield from _zeros(position, header.spec.parameters)


def _zeros(start: int, stop: int) -> Iterator[tuple[slice, Floats]]:
    """Yield the tensors of which nothing is sent."""
    if stop > start:
        yield slice(start, stop), np.zeros(stop - start, np.float32)
