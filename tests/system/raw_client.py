"""A gRPC client that sends whatever it is told to, right or wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import numpy as np

from fedaq import PROTOCOL_VERSION
from fedaq.codec import chunks, coding, headers, holding, model, payload
from fedaq.codec.given import Past
from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import RAW_BITS, Floats, Range
from fedaq.net.grpc_options import PATH
from fedaq.v1 import federation_pb2 as pb

PATIENCE_S = 60.0
UNIFORM = pb.TensorRange(lo=-0.5, hi=0.5, deviation=12**-0.5, magnitude=0.25)


class FinishedError(Exception):
    """The server said that the run is over."""


class EndedError(Exception):
    """The server ended the stream."""


class RawClient:
    """One stream to a server.

    Parameters
    ----------
    address : str
    call : grpc.aio.StreamStreamCall
    spec : ModelSpec
        Of the server's model.
    held : float32, shape (parameters,)
        The model that the client holds.
    """

    def __init__(self, address: str, call: Any, spec: ModelSpec, held: Floats) -> None:
        self.address = address
        self._call = call
        self.spec = spec
        self._held = held
        self._past = Past.none(spec.parameters)
        self._plan = pb.RoundPlan()

    async def send(self, message: pb.ClientMessage | bytes) -> None:
        """Send a message, or bytes that are none; if the stream has ended, `status` tells why."""
        frame = message if isinstance(message, bytes) else message.SerializeToString()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(PATIENCE_S):
                await self._call.write(frame)

    async def receive(self, *kinds: str) -> pb.ServerMessage:
        """Skip to the next message of one of these kinds."""
        async with asyncio.timeout(PATIENCE_S):
            while (message := await self._next()) is not None:
                got = message.WhichOneof("kind")
                if got == "plan":
                    self._plan = message.plan
                if got in kinds:
                    return message
                if got == "finish":
                    raise FinishedError(message.finish.reason)
        raise EndedError(f"no {' or '.join(kinds)} came: {await self.status()}")

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """Skip to the end of the stream; return its code and sentence."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._next() is not None:
                pass
            return await self._call.code(), await self._call.details()

    async def _next(self) -> pb.ServerMessage | None:
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError:
            return None
        ended = frame is grpc.aio.EOF  # type: ignore[attr-defined]
        return None if ended else pb.ServerMessage.FromString(frame)

    @property
    def plan(self) -> pb.RoundPlan:
        """The last plan that was received."""
        return self._plan

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        done: bool = self._call.done()
        return done

    def hang_up(self) -> None:
        """Break the stream off."""
        self._call.cancel()

    async def join(self, **fields: Any) -> None:
        """Send a join that is right but for the given fields."""
        right = {
            "protocol_version": PROTOCOL_VERSION,
            "client": "mallory",
            "examples": 1,
            "model": model.to_message(self.spec),
        }
        await self.send(pb.ClientMessage(join=pb.Join(**{**right, **fields})))

    async def report(self, round_number: int, **fields: Any) -> None:
        """Send a range report that is right but for the given fields."""
        right = {
            "round": round_number,
            "ranges": [UNIFORM] * len(self.spec.tensors),
            "train_loss": 1.0,
        }
        if "holds" not in fields:
            right["holds"] = await self._proof()
        message = pb.RangeReport(**{**right, **fields})
        await self.send(pb.ClientMessage(range_report=message))

    async def _proof(self) -> bytes:
        """Receive the models of the round, if it asks for a proof of that, and return it."""
        if not self._plan.prove:
            return b""
        for _ in range(self._plan.payloads):
            message = (await self.receive("model")).model
            header, received = headers.from_message(self.spec, message), 0
            while received < header.code_bytes:
                chunk = chunks.read((await self.receive("chunk")).chunk)
                if message.base:
                    content = coding.decode(header, chunk, self._past)
                    holding.add_difference(header, content, self._held, self._past)
                else:
                    holding.decode_whole(header, chunk, self._held, self._past)
                received += chunk.size
            if message.base:
                self._past.remember_nothing(header)
        self._plan.payloads = 0
        return model.digest(self._held, self._past.noted)

    def header(
        self, round_number: int, bits: tuple[int, ...], steps: tuple[float, ...] = ()
    ) -> pb.PayloadHeader:
        """Return the header of an update with ranges of [-0.5, 0.5]."""
        ranges = (Range(-0.5, 0.5) for _ in bits)
        planned = payload.plan_payload(self.spec, bits, ranges, steps or None)
        return payload.to_message(planned, round_number)

    async def granted(self, round_number: int) -> pb.PayloadHeader:
        """Report, wait for the grant, and return the header of a right update."""
        await self.report(round_number)
        grant = (await self.receive("grant")).grant
        return self.header(round_number, tuple(grant.uplink_bits), tuple(grant.uplink_steps))

    async def announce(self, header: pb.PayloadHeader) -> None:
        """Send the header of an update."""
        await self.send(pb.ClientMessage(update=header))

    async def chunk(self, round_number: int, offset: int, data: bytes) -> None:
        """Send a chunk."""
        chunk = pb.Chunk(round=round_number, offset=offset, data=data)
        await self.send(pb.ClientMessage(chunk=chunk))


@asynccontextmanager
async def raw_client(
    address: str, spec: ModelSpec, held: Floats | None = None
) -> AsyncIterator[RawClient]:
    """Open a stream; nothing has been sent on it yet."""
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        async with asyncio.timeout(PATIENCE_S):
            await channel.channel_ready()
        call: Any = channel.stream_stream(PATH)()  # type: ignore[call-arg]
        try:
            nothing = np.zeros(spec.parameters, np.float32)
            yield RawClient(address, call, spec, nothing if held is None else held.copy())
        finally:
            call.cancel()


def group_bytes(header: pb.PayloadHeader) -> int:
    """Return the bytes of one group of values of the first tensor."""
    bits = header.tensors[0].bits
    return 4 if bits == RAW_BITS else bits
