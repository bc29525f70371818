"""A client's side of the stream, from its join to the end of the run."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from typing import NoReturn, Protocol

from fedaq import PROTOCOL_VERSION, __version__, model, payload
from fedaq.energy import RadioCost
from fedaq.errors import FedaqError, NotFiniteError
from fedaq.payload import Payload
from fedaq.quantizer import Spread, is_width
from fedaq.tasks import Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.training import Learner

log = logging.getLogger(__name__)


class Link(Protocol):
    """The client's end of its stream."""

    async def send(self, message: pb.ClientMessage) -> None:
        """Send a message, or wait until there is room for it."""

    async def receive(self) -> pb.ServerMessage | None:
        """Return the next message, or None when the server has closed the stream."""


class FinishedError(Exception):
    """The server said that the run is over."""


class SupersededError(Exception):
    """The server went on to a new round without this client."""

    def __init__(self, plan: pb.RoundPlan) -> None:
        super().__init__(f"round {plan.round} has begun")
        self.plan = plan


class RefusedError(Exception):
    """The server refused this round's update."""


@dataclass(frozen=True)
class Progress:
    """What a client can tell of a round it finished."""

    round: int
    rounds: int
    train_loss: float
    uplink_bits: float
    downlink_bits: float


@dataclass
class Session:
    """One client in one run.

    Attributes
    ----------
    link : Link
    name : str
        Its identity.
    learner : Learner
        Model and data.
    radio : RadioCost, optional
        What its radio costs, where it knows better than the server.
    on_round : callable
        Told of every finished round.
    """

    link: Link
    name: str
    learner: Learner
    radio: RadioCost | None
    on_round: Callable[[Progress], None]
    _round: int = 0

    async def participate(self) -> str:
        """Take part until the run is over, and return the server's reason.

        Raises
        ------
        FedaqError
            If the server breaks off or breaks the protocol.
        """
        try:
            await self.link.send(self._join())
            await self._all_rounds((await self._expect("welcome")).welcome)
        except FinishedError as finish:
            with suppress(FedaqError):
                await self.link.send(pb.ClientMessage(leave=pb.Leave(reason="the run is over")))
            return str(finish)

    async def _all_rounds(self, welcome: pb.Welcome) -> NoReturn:
        heart = asyncio.create_task(self._heartbeat(welcome.heartbeat_interval_s))
        try:
            plan = (await self._expect("plan")).plan
            while True:
                try:
                    await self._take_part(plan, welcome)
                    plan = (await self._expect("plan")).plan
                except SupersededError as newer:
                    plan = newer.plan
        finally:
            heart.cancel()

    async def _take_part(self, plan: pb.RoundPlan, welcome: pb.Welcome) -> None:
        self._round = plan.round
        try:
            await self._receive_model(plan)
            training = Training(
                welcome.training.local_epochs,
                welcome.training.batch_size,
                welcome.training.learning_rate,
                welcome.training.momentum,
            )
            loss = await asyncio.to_thread(
                self.learner.train, training, welcome.seed, self.name, plan.round
            )
            spreads = await asyncio.to_thread(self._spreads)
            bits = tuple((await self._report(spreads, loss)).uplink_bits)
            ranges = payload.clipped_ranges(spreads, bits) if plan.clip else spreads
            update = payload.plan_payload(self.learner.spec, bits, ranges)
            await self._send_update(update, welcome)
            await self._expect("receipt")
        except RefusedError as refusal:
            log.warning("round %d: the server refused the update: %s", plan.round, refusal)
            return
        except NotFiniteError as error:
            log.warning("round %d: training failed: %s", plan.round, error)
            await self._report_failure()
            return
        spec = self.learner.spec
        self.on_round(
            Progress(
                plan.round,
                plan.rounds,
                loss,
                spec.mean_bits(update.bits),
                spec.mean_bits(tuple(plan.downlink_bits)),
            )
        )

    async def _receive_model(self, plan: pb.RoundPlan) -> None:
        header = payload.from_message(self.learner.spec, (await self._expect("model")).model)
        if header.bits != tuple(plan.downlink_bits):
            raise FedaqError("the server sent a model with other bits than it planned")
        received = 0
        while received < header.code_bytes:
            chunk = (await self._expect("chunk")).chunk
            if chunk.offset != received or received + len(chunk.data) > header.code_bytes:
                raise FedaqError("the server sent a chunk of the model out of place")
            # Here, not in a thread: decoding a chunk takes less time than handing it over, and
            # gRPC receives the next one meanwhile on threads of its own.
            payload.decode_chunk(header, chunk.offset, chunk.data, self.learner.weights)
            received += len(chunk.data)

    def _spreads(self) -> tuple[Spread, ...]:
        return payload.tensor_spreads(self.learner.spec, self.learner.update)

    async def _report(self, spreads: tuple[Spread, ...], loss: float) -> pb.UplinkGrant:
        report = pb.RangeReport(
            round=self._round,
            ranges=[
                pb.TensorRange(lo=s.lo, hi=s.hi, mean=s.mean, deviation=s.deviation)
                for s in spreads
            ],
            train_loss=loss,
        )
        await self.link.send(pb.ClientMessage(range_report=report))
        grant = (await self._expect("grant")).grant
        if len(grant.uplink_bits) != len(spreads) or not all(map(is_width, grant.uplink_bits)):
            raise FedaqError(f"the server granted bits {list(grant.uplink_bits)}, which cannot be")
        return grant

    async def _report_failure(self) -> None:
        """Report what the update is, so that the server refuses it instead of waiting for it."""
        nothing = pb.TensorRange(lo=nan, hi=nan)
        report = pb.RangeReport(
            round=self._round, ranges=[nothing] * len(self.learner.spec.tensors), train_loss=nan
        )
        await self.link.send(pb.ClientMessage(range_report=report))

    async def _send_update(self, update: Payload, welcome: pb.Welcome) -> None:
        spec = self.learner.spec
        keys = payload.transfer_keys(spec, welcome.seed, "uplink", self.name, self._round)
        header = payload.to_message(update, self._round)
        await self.link.send(pb.ClientMessage(update=header))
        for offset, length in update.chunks(welcome.chunk_bytes):
            data = payload.encode_chunk(update, self.learner.update, keys, offset, length)
            chunk = pb.Chunk(round=self._round, offset=offset, data=data)
            await self.link.send(pb.ClientMessage(chunk=chunk))

    async def _expect(self, kind: str) -> pb.ServerMessage:
        while True:
            message = await self.link.receive()
            if message is None:
                raise FedaqError("the server closed the stream")
            got = message.WhichOneof("kind")
            if got == "finish":
                raise FinishedError(message.finish.reason)
            if got == "refusal":
                # The next plan is due when this round is over already.
                if message.refusal.round == self._round and kind != "plan":
                    raise RefusedError(message.refusal.message)
                continue
            if got == kind:
                return message
            if got == "plan" and self._round:
                raise SupersededError(message.plan)
            if got in ("model", "chunk", "grant") and kind == "plan":
                continue  # left over from a round that was given up
            raise FedaqError(f"the server sent {got} where {kind} was due")

    async def _heartbeat(self, interval_s: float) -> None:
        with suppress(FedaqError):  # whoever reads from the link learns of its end too
            while True:
                await asyncio.sleep(interval_s)
                await self.link.send(pb.ClientMessage(heartbeat=pb.Heartbeat()))

    def _join(self) -> pb.ClientMessage:
        return pb.ClientMessage(
            join=pb.Join(
                protocol_version=PROTOCOL_VERSION,
                client=self.name,
                examples=self.learner.examples,
                model=model.to_message(self.learner.spec),
                radio=None
                if self.radio is None
                else pb.Radio(
                    uplink_j_per_bit=self.radio.uplink_j_per_bit,
                    downlink_j_per_bit=self.radio.downlink_j_per_bit,
                    receive_j_per_bit=self.radio.receive_j_per_bit,
                ),
                software=f"fedaq {__version__}",
            )
        )
