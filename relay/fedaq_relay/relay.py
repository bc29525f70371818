"""A relay: each round with its own clients makes the one update that it sends to its server.

To its server it is a client whose training is a round: it receives a model, has its clients train
from it, and what their mean makes of the model is its update. Both halves are those of a client
and of a server. The ledger in its folder is that of a run whose rounds another server counts.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np

from fedaq.codec import model
from fedaq.declines import Decline, Reason
from fedaq.errors import UserError
from fedaq.process.logs import event
from fedaq.settings import Settings
from fedaq.tasks import Task, Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.endings import GivenUpError
from fedaq_client.reports import validated
from fedaq_client.session import Stream
from fedaq_client.training import Learner
from fedaq_server.records.ledger import Committed, Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.loop import drawn, run_round
from fedaq_server.rounds.relayed import reserve_j
from fedaq_server.run import Run
from fedaq_server.schemes.hop import PricedHop, hop_scheme
from fedaq_server.schemes.scheme import Plan
from fedaq_server.serve import listening, metrics_exposed, page_shown
from fedaq_server.transport.client import MAX_EXAMPLES, Client
from fedaq_server.transport.tcp_counter import NoWire, WireCounter, socket_counter

log = logging.getLogger(__name__)

# Of the time that the server gives a round: the rest is for the way up.
DEADLINE_SHARE = 0.75
CUT_OFF = "the relay lost its server"

Connect = Callable[[], AbstractAsyncContextManager[Stream]]


@dataclass(frozen=True)
class _Done:
    """A round that is over here, in case that the server opens it again.

    Attributes
    ----------
    round : int
    base : bytes
        Digest of the model that it began with.
    report : RangeReport
    """

    round: int
    base: bytes
    report: pb.RangeReport


class Relay:
    """The clients of a relay, for whom its session speaks (`fedaq_client.below.Below`).

    Parameters
    ----------
    settings : Settings
        As of a server; the section ``client`` is of the relay itself.
    task : Task
    learner : Learner
        Of the relay's session; it has no data.
    ledger : Ledger
        New, or one that this relay left.
    on_round : callable
        Told of every round with its clients.
    on_listening, on_page : callable
        Told of the port, and of the address of the page.
    """

    def __init__(
        self,
        settings: Settings,
        task: Task,
        learner: Learner,
        ledger: Ledger,
        on_round: Callable[[RoundRecord], None] = lambda record: None,
        on_listening: Callable[[int], None] = lambda port: None,
        on_page: Callable[[str], None] = lambda address: None,
    ) -> None:
        self.run: Run | None = None
        self._settings, self._task, self._learner, self._ledger = settings, task, learner, ledger
        self._on_round, self._on_listening, self._on_page = on_round, on_listening, on_page
        self._resumed = ledger.rounds_done > 0
        self._wire: WireCounter = NoWire()
        self._done: _Done | None = None
        self._complete_by_s = 0.0
        self._is_complete = False
        # Whether its server is there; without one for long, its clients are let go.
        self._above = asyncio.Event()
        self._cut_off = asyncio.Event()
        self._cutting: asyncio.TimerHandle | None = None
        self._serving: asyncio.Task[None] | None = None

    async def take_part(self, participate: Callable[[], Awaitable[str]]) -> str:
        """Let a session take part for the clients; return its server's reason for the end.

        Raises
        ------
        UserError
            If the server refuses it, or it cannot listen.
        FedaqError
            If there was no server for too long.
        """
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session = asyncio.ensure_future(participate())
        begun = asyncio.ensure_future(self._above.wait())
        try:
            await asyncio.wait({session, begun}, return_when=asyncio.FIRST_COMPLETED)
            if self.run is None:
                return await session
            self._serving = asyncio.create_task(self._serve(self.run))
            await asyncio.wait({session, self._serving}, return_when=asyncio.FIRST_COMPLETED)
            if session.done() and not session.exception():
                self._over.set_result(None)
                await self._serving
            elif self._serving.done():
                await self._serving  # it has failed
            return await session
        finally:
            for each in (session, begun, self._serving):
                if each is not None:
                    each.cancel()
            await asyncio.gather(
                *(each for each in (session, begun, self._serving) if each is not None),
                return_exceptions=True,
            )

    @asynccontextmanager
    async def connected(self, connect: Connect) -> AsyncIterator[Stream]:
        """Open a stream to the server, and take note of its end."""
        async with connect() as stream:
            try:
                yield stream
            finally:
                if self._cutting is None and self._above.is_set():
                    wait_s = self._settings.network.return_wait_s
                    self._cutting = asyncio.get_running_loop().call_later(wait_s, self._cut)

    def _cut(self) -> None:
        self._above.clear()
        self._cut_off.set()

    def begin(self, welcome: pb.Welcome, training: Training) -> None:
        """Take note of the run that the server has let the relay into.

        Raises
        ------
        UserError
            If it cannot relay that run.
        """
        settings, ledger = self._settings, self._ledger
        if not welcome.relays:
            raise UserError("the server knows no relays; install the same fedaq on both")
        if welcome.seed != settings.seed:
            raise UserError(
                f"the seed of the run is {welcome.seed}, that of this relay {settings.seed}; give "
                f"the relay and its clients --seed {welcome.seed}"
            )
        if self.run is None:
            if not ledger.rounds_done:
                ledger.begin(settings.model_dump(mode="json"), welcome.run_id)
            self.run = Run(
                settings, ledger, self._on_round, self._task, hop_scheme, training=training,
                tests=False,
            )  # fmt: skip
        if ledger.run_id != welcome.run_id:
            raise UserError(
                f"--out {ledger.folder}: holds what the relay had of another run; choose another"
            )
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None
        if not self._above.is_set():
            network, again = settings.network, self._resumed or self._cut_off.is_set()
            patience_s = network.return_wait_s if again else network.join_timeout_s
            self._complete_by_s, self._is_complete = time.monotonic() + patience_s, False
            self._cut_off.clear()
            self._above.set()

    def ready(self) -> Decline | None:
        """Tell whether rounds may count on the clients: all of them at first, then a quorum."""
        there = [] if self.run is None else self.run.roster.ready()
        wanted = self._settings.quorum
        if not self._is_complete and time.monotonic() < self._complete_by_s:
            wanted = self._settings.clients
        if self.run is None or len(there) < wanted:
            return Decline(Reason.BUSY, f"{len(there)} of its {wanted} clients are ready")
        self._is_complete = True
        return None

    def standing(self) -> pb.Relayed:
        """Return who is ready now."""
        if self.run is None:
            return pb.Relayed()
        there, scheme = self.run.roster.ready(), self.run.federation.scheme
        return pb.Relayed(
            clients=behind(there),
            examples=sum(each.examples for each in there),
            most_price=scheme.most_price if isinstance(scheme, PricedHop) else 0.0,
        )

    async def update(self, plan: pb.RoundPlan) -> pb.RangeReport:
        """Carry out a round with the clients, and leave what came of it in the learner.

        Raises
        ------
        GivenUpError
            If nothing did.
        """
        assert self.run is not None
        run, learner = self.run, self._learner
        base = await asyncio.to_thread(model.digest, learner.held)
        done = self._done
        if done is None or (done.round, done.base) != (plan.round, base):
            if plan.round <= run.ledger.rounds_done:
                raise _given_up(f"it was stopped in round {plan.round}, which is lost to it")
            done = self._done = _Done(plan.round, base, await self._round(run, plan))
        if not done.report.relayed.clients:
            raise _given_up("too few updates of its clients came in time")
        await asyncio.to_thread(learner.adopt, run.federation.model, plan.round)
        report = pb.RangeReport()
        report.CopyFrom(done.report)
        return report

    async def _round(self, run: Run, plan: pb.RoundPlan) -> pb.RangeReport:
        await run.roster.wait_for_lost(run.settings.network.return_wait_s)
        clients = drawn(run.roster.ready(), run.settings, plan.round)
        if len(clients) < run.settings.quorum:
            raise _given_up(f"{len(clients)} of its clients are ready")
        weights = run.conduct.weights({client.name: client.examples for client in clients})
        counted: set[str] = set()

        def on_round(committed: Committed, decided: Plan) -> None:
            counted.update(
                each.client
                for each in committed.transfers
                if each.direction == "uplink" and each.counted
            )
            run.federation.on_round(committed, decided)

        scheme = run.federation.scheme
        if isinstance(scheme, PricedHop):
            rounds = max(1, plan.rounds - plan.round + 1)
            scheme.told(plan.price, plan.relay_j, reserve_j(plan.relay_j, rounds))
        federation = replace(
            run.federation,
            settings=_settings_in(run.settings, plan),
            measured=plan.measure,
            share=plan.weight or 1.0,
            on_round=on_round,
        )
        # What its clients hold is brought to this, as to the model of any server.
        np.copyto(federation.model, self._learner.held)
        with ThreadPoolExecutor(1, "fold") as worker:
            record = await run_round(
                federation, plan.round, clients, worker, self._wire, resumed=self._resumed
            )
        self._resumed = False
        if record is None:
            raise _given_up(f"{plan.relay_j:.3g} J do not pay for a round with its clients")
        report = pb.RangeReport(
            train_loss=record.train_loss,
            relayed=pb.Relayed(
                clients=behind([client for client in clients if client.name in counted]),
                examples=sum(weights[name] for name in counted),
                energy_j=await asyncio.to_thread(lambda: run.ledger.energy_j),
            ),
        )
        if not record.clients:
            report.relayed.clients = 0
        if record.client_metrics:
            examples = sum(each.examples for each in record.validations.values())
            report.validation.CopyFrom(
                validated(min(examples, MAX_EXAMPLES), record.client_metrics)
            )
        if record.training_j:
            report.training_j = record.training_j
        return report

    async def _serve(self, run: Run) -> None:
        async with page_shown(run) as page:
            if page is not None:
                self._on_page(page)
            with metrics_exposed(run):
                await run.carry(lambda last: self._admit(run))

    async def _admit(self, run: Run) -> None:
        """Let clients connect until the run is over, as long as the server is there."""
        port: int | None = None
        while not self._over.done():
            await _first(self._above.wait(), self._over)
            async with listening(run, self._on_listening, port) as port:
                self._wire = socket_counter(port)
                await _first(self._cut_off.wait(), self._over)
                over = self._over.done()
                if not over:
                    log.warning(
                        "%s for %g s; its clients are let go until it is back", CUT_OFF,
                        run.settings.network.return_wait_s,
                        extra=event("relay cut off"),
                    )  # fmt: skip
                reason = "the run is over" if over else CUT_OFF
                await run.say_goodbye(pb.Finish(reason=reason, over=over))


def behind(clients: list[Client]) -> int:
    """Return for how many devices these clients speak."""
    return sum(1 if client.relayed is None else client.relayed for client in clients)


def _given_up(why: str) -> GivenUpError:
    return GivenUpError(Decline(Reason.OTHER, why))


def _settings_in(settings: Settings, plan: pb.RoundPlan) -> Settings:
    """Return the settings as a round of the server's has them."""
    own, deadline_s = settings.network, DEADLINE_SHARE * plan.deadline_s
    network = own.model_copy(update={"round_deadline_s": min(own.round_deadline_s, deadline_s)})
    return settings.model_copy(update={"rounds": max(plan.rounds, plan.round), "network": network})


async def _first(waiting: Awaitable[bool], over: asyncio.Future[None]) -> None:
    """Wait until something happens, or the run is over."""
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait((task, over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
