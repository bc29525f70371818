"""A client's side of the stream, from its join to the end of the run."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from fedaq import PROTOCOL_VERSION, __version__, declines
from fedaq.codec import chunks, coding, model, payload
from fedaq.codec.chunks import Chunk, expected
from fedaq.codec.common_grid import cut
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Spread
from fedaq.codec.sparse import Sparsity
from fedaq.codec.subset import Subset
from fedaq.declines import Decline
from fedaq.energy.cost import RadioCost
from fedaq.errors import FedaqError, NotFiniteError, printable, reason_name
from fedaq.process.logs import event
from fedaq.tasks import Training, blamed
from fedaq.tasks.training import KNOWN_CLIPPING
from fedaq.v1 import federation_pb2 as pb
from fedaq_client import reports
from fedaq_client.below import Below
from fedaq_client.clipping import clip, shorten
from fedaq_client.demands import checked_plan, checked_training, coded_ranges, is_possible
from fedaq_client.endings import (
    FinishedError,
    GivenUpError,
    RefusedError,
    ServerStoppedError,
    SupersededError,
)
from fedaq_client.events import Declined, Event, Joined, Refused, RoundBegun, Sent, Trained
from fedaq_client.means import Effort, Means
from fedaq_client.privacy import SEEN, Privacy, can_mask
from fedaq_client.readiness import Ready, answer_of
from fedaq_client.receiving import receive_model
from fedaq_client.training import Learner

log = logging.getLogger(__name__)

LEAVE_S = 1.0
# What may still come of a round that was given up.
LEFT_OVER = ("model", "grant", "mask_roster", "mask_shares", "mask_set", "unmask")


class Stream(Protocol):
    """The client's end of its stream."""

    async def send(self, frame: bytes) -> None:
        """Send a serialized `ClientMessage`, or wait until there is room for it."""

    async def receive(self) -> pb.ServerMessage | Chunk | None:
        """Return the next message, or None when the server has closed the stream."""


@dataclass
class Session:
    """One client in one run.

    Attributes
    ----------
    stream : Stream
    name : str
        Its identity.
    learner : Learner
        Model and data.
    radio : RadioCost, optional
        What its radio costs, where it knows better than the server.
    on_event : callable
        Told of what happens.
    on_training : callable
        Told, on another thread, how far the training of a round is: what is done, and of how much.
    on_transfer : callable
        Told how far a transfer is: whether it goes down, code bytes that are done, and of how many.
    process : bytes
        Random number of this process, by which the server knows it again; empty for none.
    ready : callable, optional
        Asked, on another thread, whether rounds may count on this client: before it joins, when a
        round is opened to it, and while it waits for the next, at every interval of heartbeats.
    welcomed : bool
        Whether the server has let the client in.
    return_window_s : float
        Seconds over which its clients spread their returns, once it is gone.
    means : Means
        What its device may spend, and what training takes there.
    turn : callable
        Given this session, returns what its join and each of its rounds are done within; there it
        may be lent another `learner`, which holds another model.
    digest : bytes
        Of the model that is held; empty where it is to be computed.
    privacy : Privacy
        What it keeps from the server.
    below : Below, optional
        The clients of a relay, which make its updates; None for a device that trains.
    """

    stream: Stream
    name: str
    learner: Learner
    radio: RadioCost | None
    on_event: Callable[[Event], None]
    process: bytes = b""
    welcomed: bool = False
    return_window_s: float = 0.0
    on_training: Callable[[int, int], None] = lambda done, total: None
    on_transfer: Callable[[bool, int, int], None] = lambda down, done, total: None
    ready: Ready | None = None
    means: Means = field(default_factory=Means)
    turn: "Callable[[Session], AbstractAsyncContextManager[object]]" = nullcontext
    digest: bytes = b""
    privacy: Privacy = SEEN
    below: Below | None = None
    _declined: Decline | None = None
    _training: Training = field(default_factory=Training)
    _round: int = 0
    _relayed: pb.Relayed | None = None

    async def participate(self) -> str:
        """Take part until the run is over, and return the server's reason.

        Raises
        ------
        FedaqError
            If the server breaks off or breaks the protocol.
        """
        try:
            async with self.turn(self):
                if self.learner.folder is not None:
                    await asyncio.to_thread(self.learner.resume, self.name)
                await self._ask()
                await self._say(self._join())
            welcome = (await expected(self._expect, "welcome")).welcome
            self._training = checked_training(welcome)
            if self.below is not None:
                self.below.begin(welcome, self._training)
            self.welcomed, self.return_window_s = True, welcome.return_window_s
            self.learner.begin(welcome.run_id)
            log.info("%s joined", self.name, extra=event("joined", client=self.name))
            self.on_event(Joined(self.name))
            await self._all_rounds(welcome)
        except FinishedError as finish:
            self.learner.end()
            await self._leave("the run is over")
            return str(finish)
        except asyncio.CancelledError:
            await self._leave("the client was stopped")
            raise

    async def _leave(self, reason: str) -> None:
        with suppress(FedaqError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._say(pb.ClientMessage(leave=pb.Leave(reason=reason)))

    async def _all_rounds(self, welcome: pb.Welcome) -> NoReturn:
        heart = asyncio.create_task(self._heartbeat(welcome.heartbeat_interval_s))
        try:
            # While a client waits, it holds no plan: of thousands in one process they add up.
            plan: pb.RoundPlan | None = None
            while True:
                try:
                    plan = plan or await self._next_plan(welcome)
                    async with self.turn(self):
                        await self._take_part(plan, welcome)
                    plan = None
                except SupersededError as newer:
                    plan = newer.plan
        finally:
            heart.cancel()

    async def _next_plan(self, welcome: pb.Welcome) -> pb.RoundPlan:
        """Wait for a round; say meanwhile whether it may count on this client."""
        waiting = asyncio.ensure_future(expected(self._expect, "plan"))
        # What the program raises meanwhile matters more.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while self.ready is not None and not waiting.done():
                await self._declare()
                await asyncio.wait({waiting}, timeout=welcome.heartbeat_interval_s)
            # A read that is broken off takes the stream with it, before this client could say that
            # it leaves.
            return (await asyncio.shield(waiting)).plan
        finally:
            waiting.cancel()

    async def _declare(self) -> None:
        """Tell the server whether this client is ready, if that has changed."""
        before = self._declined, self._relayed
        try:
            await self._ask()
        except Exception:
            await self._leave("the client failed")
            raise
        if (self._declined, self._relayed) != before:
            await self._say_ready()

    async def _say_ready(self) -> None:
        said = declines.to_message(self._declined, await asyncio.to_thread(self._holds))
        if self._relayed is not None:
            said.relayed.CopyFrom(self._relayed)
        await self._say(pb.ClientMessage(readiness=said))

    async def _ask(self) -> None:
        """Ask the program whether its device is ready, and tell of a new reason if it is not."""
        self._relayed = None if self.below is None else self.below.standing()
        if self.ready is None:
            return
        before, now = self._declined, await asyncio.to_thread(answer_of, self.ready)
        self._declined = now
        if now is not None and (before is None or before.reason != now.reason):
            self.on_event(Declined(now.reason, now.detail))

    async def _take_part(self, plan: pb.RoundPlan, welcome: pb.Welcome) -> None:
        self._round = plan.round
        checked_plan(plan)
        self.privacy.check(masked=plan.HasField("masking"), clipped=plan.HasField("clipping"))
        await self._declare()
        if self._declined is not None:
            return
        self.on_event(RoundBegun(plan.round, plan.rounds))
        try:
            downlink_bits = await self._receive_models(plan)
            if self.below is None:
                trained = await self._train(plan, welcome)
            else:
                trained = await self.below.update(plan)
            loss = trained.train_loss
            self.on_event(Trained(plan.round, loss))
            subset = Subset(self.learner.spec, welcome.seed, plan.round, max(1, plan.one_in))
            spreads = await asyncio.to_thread(self._spreads, plan, subset)
            holds = await asyncio.to_thread(self._holds) if plan.prove else b""
            if plan.HasField("masking"):
                report = reports.hidden(plan.round, trained, holds)
                sent = await self._send_masked(plan, welcome, subset, spreads, loss, report)
            elif plan.HasField("clipping"):
                sent = await self._send_clipped(plan, trained, spreads, welcome, holds)
            else:
                grant = await self._grant(reports.seen(plan.round, trained, spreads, holds))
                sent = await self._send_update(plan, grant, spreads, welcome)
            await expected(self._expect, "receipt")
        except RefusedError as refusal:
            log.warning(
                "round %d: the server refused the update: %s", plan.round, refusal,
                extra=event("update refused", client=self.name, round=plan.round,
                            reason=refusal.reason, detail=str(refusal)),
            )  # fmt: skip
            self.on_event(Refused(plan.round, refusal.reason, printable(str(refusal))))
            return
        except NotFiniteError as error:
            log.warning(
                "round %d: training failed: %s", plan.round, error,
                extra=event("training failed", client=self.name, round=plan.round,
                            detail=str(error)),
            )  # fmt: skip
            # The server refuses it at once, instead of waiting for an update.
            holds = self._holds() if plan.prove else b""
            failed = reports.failure(plan.round, len(self.learner.spec.tensors), holds)
            await self._say(pb.ClientMessage(range_report=failed))
            not_finite = reason_name(pb.REFUSAL_REASON_NOT_FINITE)
            self.on_event(Refused(plan.round, not_finite, str(error)))
            return
        except GivenUpError as error:
            log.warning("round %d: given up: %s", plan.round, error)
            self._declined = error.decline
            await self._say_ready()
            self.on_event(Declined(error.decline.reason, error.decline.detail))
            return
        update, update_bytes = sent
        bits = update.sent_bits(update_bytes)
        self.on_event(Sent(plan.round, plan.rounds, loss, bits, downlink_bits))

    async def _train(self, plan: pb.RoundPlan, welcome: pb.Welcome) -> pb.RangeReport:
        """Leave the update of a round in the learner; return what is known of its training."""
        validation = await asyncio.to_thread(self.learner.validate)
        effort = await asyncio.to_thread(Effort, self.means)
        with blamed(self.learner.task, "training"):
            loss = await asyncio.to_thread(
                self.learner.train, self._training, welcome.seed, self.name,
                plan.round, plan.rounds, self.on_training, measure=plan.measure,
            )  # fmt: skip
        report = reports.trained(loss, validation)
        await asyncio.to_thread(effort.report, report)
        return report

    async def _receive_models(self, plan: pb.RoundPlan) -> float:
        """Receive what the round begins with; return the bits per value of the last of it."""
        for _ in range(max(plan.payloads, 1)):
            bits = await receive_model(
                self.learner, self._expect, self._holds, self._forget_digest, self.on_transfer
            )
        return bits

    def _forget_digest(self) -> None:
        self.digest = b""

    def _holds(self) -> bytes:
        """Return the digest of the model that is held."""
        if not self.digest:
            self.digest = model.digest(self.learner.held, self.learner.past.noted)
        return self.digest

    def _spreads(self, plan: pb.RoundPlan, subset: Subset) -> tuple[Spread, ...]:
        """Measure the update, and leave out of it what is not to be sent.

        Where the largest values are sent, it is they that are measured.
        """
        spreads = self.learner.spreads()
        subset.leave(self.learner.weights)
        if not plan.keep:
            return spreads
        self.learner.leave_out(Sparsity(plan.keep, plan.ternary))
        return self.learner.spreads()

    async def _grant(self, report: pb.RangeReport) -> pb.UplinkGrant:
        await self._say(pb.ClientMessage(range_report=report))
        grant = (await expected(self._expect, "grant")).grant
        if not is_possible(grant, len(self.learner.spec.tensors)):
            raise FedaqError(
                f"the server granted bits {list(grant.uplink_bits)} with steps "
                f"{list(grant.uplink_steps)}, which cannot be"
            )
        return grant

    async def _send_clipped(
        self,
        plan: pb.RoundPlan,
        trained: pb.RangeReport,
        spreads: tuple[Spread, ...],
        welcome: pb.Welcome,
        holds: bytes,
    ) -> tuple[Payload, int]:
        """Send an update that is no longer than it may be; of it nothing else is said."""
        report = reports.hidden(plan.round, trained, holds)
        within = await asyncio.to_thread(clip, self.learner.weights, plan.clipping.norm)
        report.within_clip = plan.clipping.count and within
        return await self._send_update(plan, await self._grant(report), spreads, welcome)

    async def _send_update(
        self,
        plan: pb.RoundPlan,
        grant: pb.UplinkGrant,
        spreads: tuple[Spread, ...],
        welcome: pb.Welcome,
    ) -> tuple[Payload, int]:
        """Send the update; return its header, and the payload bytes that it took."""
        spec, bits = self.learner.spec, tuple(grant.uplink_bits)
        ranges = coded_ranges(grant, spreads, clip=plan.clip)
        if grant.uplink_reaches:
            cut(self.learner.weights, grant.uplink_reaches, spec.slices)
        update = payload.plan_payload(spec, bits, ranges, tuple(grant.uplink_steps))
        keys = payload.transfer_keys(spec, welcome.seed, "uplink", self.name, self._round)
        if plan.HasField("clipping"):
            most = plan.clipping.rounded
            await asyncio.to_thread(shorten, self.learner.weights, update, keys, most)
        coded: Iterable[Chunk] = self.learner.coded(update, keys, plan)
        if grant.limit_bytes:
            update, coded = await asyncio.to_thread(
                coding.within,
                update,
                grant.limit_bytes,
                lambda coarser: list(self.learner.coded(coarser, keys, plan)),
            )
        await asyncio.to_thread(self.learner.keep_rest, self._round, update)
        sent_bytes = update.header_bytes
        await asyncio.to_thread(self.learner.save)
        await self._say(pb.ClientMessage(update=payload.to_message(update, self._round)))
        for chunk in coded:
            await self.stream.send(chunk.frame(pb.ClientMessage))
            sent_bytes += chunk.cost_bytes
            self.on_transfer(False, chunk.offset + chunk.size, update.code_bytes)
        return update, sent_bytes

    async def _send_masked(
        self,
        plan: pb.RoundPlan,
        welcome: pb.Welcome,
        subset: Subset,
        spreads: tuple[Spread, ...],
        loss: float,
        report: pb.RangeReport,
    ) -> tuple[Payload, int]:
        """Send a masked update; return its header, and the payload bytes that it took."""
        from fedaq_client import masked  # it needs a package that other rounds do without

        update = masked.masked_update(self.learner, plan, subset, self.name, spreads, loss)
        member = self.privacy.member(self.name, welcome.run_id, plan.round)
        await asyncio.to_thread(self.learner.save)
        sent_bytes = await masked.send_masked(
            update, member, report, plan.chunk_bytes, self._expect, self.stream.send,
            self.on_transfer,
        )  # fmt: skip
        return update.header, sent_bytes

    async def _say(self, message: pb.ClientMessage) -> None:
        await self.stream.send(message.SerializeToString())

    async def _expect(self, kind: str) -> pb.ServerMessage | Chunk:
        while True:
            message = await self.stream.receive()
            if message is None:
                raise FedaqError("the server closed the stream")
            got = chunks.kind_of(message)
            if got == kind:
                return message
            if isinstance(message, Chunk) or got in LEFT_OVER:
                if kind == "plan":
                    continue  # left over from a round that was given up
            elif got == "finish":
                reason = printable(message.finish.reason)
                if message.finish.over:
                    raise FinishedError(reason)
                raise ServerStoppedError(reason)
            elif got == "refusal":
                # The next plan is due when this round is over already.
                if message.refusal.round == self._round and kind != "plan":
                    raise RefusedError(message.refusal)
                continue
            elif got == "plan" and self._round:
                raise SupersededError(message.plan)
            raise FedaqError(f"the server sent {got} where {kind} was due")

    async def _heartbeat(self, interval_s: float) -> None:
        with suppress(FedaqError):  # whoever reads from the link learns of its end too
            while True:
                await asyncio.sleep(interval_s)
                await self._say(pb.ClientMessage(heartbeat=pb.Heartbeat()))

    def _join(self) -> pb.ClientMessage:
        relayed = self._relayed
        return pb.ClientMessage(
            join=pb.Join(
                protocol_version=PROTOCOL_VERSION,
                client=self.name,
                examples=self.learner.examples if relayed is None else max(1, relayed.examples),
                model=model.to_message(self.learner.spec),
                radio=self.means.radio_message(self.radio),
                budget=self.means.stated(),
                tariff=self.means.tariff,
                software=f"fedaq {__version__}",
                holds=self._holds(),
                process=self.process,
                training=KNOWN_CLIPPING,
                readiness=declines.to_message(self._declined) if self._declined else None,
                masks=relayed is None and can_mask(),
                relayed=relayed,
            )
        )
