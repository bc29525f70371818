"""From the objects of a run to the page: looks at them now and then, on their event loop.

What is shown goes to the thread of the page as plain data, and nobody looks while nobody watches.
Viewers cost the rounds that look, and what the thread of the page takes of the interpreter that
both share: most while it reads a large past run, of which it reads one at a time.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from fedaq.energy.cost import RadioCost
from fedaq.errors import printable
from fedaq.metric import written
from fedaq.process.logs import event
from fedaq_server.dashboard.hub import Hub
from fedaq_server.dashboard.live import (
    ClientView,
    Point,
    Status,
    Sums,
    View,
    bounded,
    flat,
    forecast,
)
from fedaq_server.dashboard.serving import access_of, served
from fedaq_server.records.ledger import Committed
from fedaq_server.records.record import RoundRecord
from fedaq_server.schemes.scheme import Plan
from fedaq_server.transport.client import Client
from fedaq_server.transport.roster import Gone

if TYPE_CHECKING:
    from fedaq_server.run import Run

log = logging.getLogger(__name__)

# Seconds between two looks; more, but not many, where looking takes more than this share of a
# processor. That it had to wait for one, says nothing.
EVERY_S, LARGEST_SHARE, LONGEST_PAUSE_S = 0.5, 0.02, 5.0
# Intervals of heartbeats after which a client that is connected counts as silent.
SILENT = 2


@dataclass(slots=True)
class _Traffic:
    """Payload bytes of one client: so far, and in its last round."""

    uplink: int = 0
    downlink: int = 0
    last_uplink: int = 0
    last_downlink: int = 0


class Watch:
    """What must be remembered of a run to show it.

    Parameters
    ----------
    run : Run
    """

    def __init__(self, run: "Run") -> None:
        self._run = run
        facts = run.facts()
        self._facts = {
            **{name: facts[name] for name in ("fedaq", "task", "scheme", "seed", "parameters")},
            "id": run.folder.resolve().name,
            "clients": run.settings.clients,
            "rounds": run.settings.rounds,
            "budget_j": run.settings.energy.joules,
            "metric": asdict(run.task.metric),
            "epsilon": run.settings.privacy.epsilon,
            "delta": run.settings.privacy.delta,
            "target": run.settings.metric_target,
            # Those of clients are each client's own affair.
            "settings": flat({k: v for k, v in facts["settings"].items() if k != "client"}),
        }
        self._sums = Sums(run.task.metric.name)
        self._trouble = self._client_metrics = ""
        self._points: tuple[Point, ...] = ()
        for record in run.ledger.records():
            self._add(record)
        self._planned_j: float | None = None
        self._traffic: dict[str, _Traffic] = {}
        for (name, direction), total in run.ledger.traffic().items():
            setattr(self._traffic.setdefault(name, _Traffic()), direction, total)
        self._costs: dict[str, RadioCost] = {}

    def committed(self, committed: Committed, plan: Plan) -> None:
        """Take note of a round."""
        spent_j = self._sums.energy_j
        self._add(committed.record)
        self._planned_j = None if plan.forecast_j is None else spent_j + plan.forecast_j
        self._costs.clear()
        for transfer in committed.transfers:
            traffic = self._traffic.setdefault(transfer.client, _Traffic())
            if transfer.direction == "uplink":
                traffic.uplink += transfer.payload_bytes
                traffic.last_uplink = transfer.payload_bytes
            else:
                traffic.downlink += transfer.payload_bytes
                traffic.last_downlink = transfer.payload_bytes

    def _add(self, record: RoundRecord) -> None:
        self._points = bounded((*self._points, self._sums.point(vars(record))))
        trouble = self._run.trouble(record)
        self._trouble = trouble and printable(f"After round {record.round} {trouble}.")
        told = record.client_metrics.items()
        self._client_metrics = ", ".join(f"{name} {written(name, value)}" for name, value in told)

    def view(self, *, ended: bool = False) -> View:
        """Return what there is to see now."""
        run = self._run
        done = int(self._points[-1][0] or 0) if self._points else 0
        rounds = run.settings.rounds
        if ended:
            status = Status("over" if run.ledger.is_over else "stopped", done)
        else:
            wanted = run.roster.wanted
            phase = "waiting" if wanted else "training"
            status = Status(phase, min(done + 1, rounds), len(run.roster.ready()), wanted)
        # A run that is over will take nothing more, whatever was planned.
        last = done if status.phase == "over" else rounds
        planned_j = None if status.phase == "over" else self._planned_j
        return View(
            at=time.time(),
            run=self._facts,
            status=status,
            points=self._points,
            forecast=forecast(self._points, last, planned_j),
            clients=self._clients(done + 1),
            turned_away=tuple(run.admission.turned_away.values()),
            trouble=self._trouble,
            client_metrics=self._client_metrics,
        )

    def _clients(self, round_number: int) -> dict[str, ClientView]:
        run = self._run
        now, monotonic = time.time(), time.monotonic()
        silent_s = SILENT * run.settings.network.heartbeat_interval_s
        shown = {}
        for client in run.roster.everyone():
            silence_s = monotonic - client.last_seen
            state = _state(client, round_number, is_aside=run.roster.is_aside(client))
            seen_at = None if silence_s < silent_s else float(round(now - silence_s))
            shown[client.name] = self._shown(client.name, client, state, seen_at, round_number)
        for name, gone in run.roster.gone.items():
            state = "left" if gone.left else "lost"
            shown[name] = self._shown(name, gone, state, float(round(gone.at)), round_number)
        for name, entry in run.conduct.shut_out.items():
            before = shown.get(name)
            seen_at = None if before is None else before.seen_at
            refusals = run.conduct.strikes[name]
            shown[name] = ClientView(
                "shut out", seen_at=seen_at, refusals=refusals, reason=entry.reason
            )
        for name, empty in run.accounts.empty.items():
            before = shown.get(name, ClientView("empty"))
            shown[name] = replace(before, state="empty", reason=empty.reason)
        return {name: shown[name] for name in sorted(shown)}

    def _shown(
        self, name: str, client: Client | Gone, state: str, seen_at: float | None, round_number: int
    ) -> ClientView:
        settings = self._run.settings
        traffic = self._traffic.get(name, _Traffic())
        cost = client.radio or self._costs.get(name)
        if cost is None:
            cost = settings.energy.radio_cost(settings.seed, name, round_number)
            self._costs[name] = cost
        bits_per_byte = 8 / self._run.spec.parameters
        return ClientView(
            state=state,
            radio="own" if client.radio else settings.energy.radio,
            j_per_bit=float(f"{cost.uplink_j_per_bit:.3g}"),
            uplink_bits=round(traffic.last_uplink * bits_per_byte, 3),
            downlink_bits=round(traffic.last_downlink * bits_per_byte, 3),
            uplink_bytes=traffic.uplink,
            downlink_bytes=traffic.downlink,
            seen_at=seen_at,
            refusals=client.refusals,
            reason=_detail(client) or client.refusal,
            relayed=client.relayed,
        )


def _state(client: Client, round_number: int, *, is_aside: bool) -> str:
    if is_aside:
        return "set aside"
    if client.declined is not None:
        return f"declined: {client.declined.reason}"
    return client.phase if client.round == round_number else "waiting"


def _detail(client: Client | Gone) -> str:
    return client.declined.detail if isinstance(client, Client) and client.declined else ""


@asynccontextmanager
async def shown(run: "Run") -> AsyncIterator[str]:
    """Show a run on its page within the block; yield where it is, in words.

    Raises
    ------
    UserError
        If the page cannot be where it should, or may not without a token.
    """
    network = run.settings.network
    assert network.dashboard_port is not None
    watch, hub = Watch(run), Hub()
    run.on_commit = watch.committed
    access = access_of(network.dashboard_host, network.dashboard_token_file)
    with served(access, network.dashboard_port, run.folder.parent, hub) as page:
        log.info(
            "watch it: %s", page.address,
            extra=event("page listening", host=access.host, port=page.port),
        )  # fmt: skip
        looking = asyncio.create_task(_look(watch, hub))
        try:
            asked = network.dashboard_token_file
            yield page.address if asked is None else f"{page.address} (the token is in {asked})"
        finally:
            looking.cancel()
            hub.publish(watch.view(ended=True))


async def _look(watch: Watch, hub: Hub) -> None:
    pause_s = EVERY_S
    while True:
        await asyncio.sleep(pause_s)
        if hub.viewers:
            began = time.thread_time()
            try:
                hub.publish(watch.view())
            except Exception:  # the rounds go on, and nobody else would hear of it
                log.exception("the page shows nothing more of this run until it ends")
                return
            pause_s = max(EVERY_S, (time.thread_time() - began) / LARGEST_SHARE)
            pause_s = min(pause_s, LONGEST_PAUSE_S)
