"""A round: what it works on, and how it begins."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from fedaq.codec import payload
from fedaq.codec.coding import Content
from fedaq.codec.common_grid import small_weights
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Spread
from fedaq.energy.cost import downlink_j_per_bit
from fedaq.settings import Settings
from fedaq_server.accounts import Party
from fedaq_server.privacy.release import Release, private_values
from fedaq_server.records.capture import Capture
from fedaq_server.rounds.aggregation import Aggregate
from fedaq_server.rounds.broadcast import Broadcast, Source, begin_broadcast
from fedaq_server.rounds.differences import LEAST_CHUNK_BYTES, UP_TO_DATE, CatchUp, History
from fedaq_server.rounds.federation import Federation
from fedaq_server.rounds.gathered import Gathered
from fedaq_server.rounds.relayed import allowances, reserved_j, tell_what_is_not_counted
from fedaq_server.rounds.turns import reporters
from fedaq_server.schemes.scheme import ClientState, Plan, RoundState, granted_down
from fedaq_server.schemes.sparse import sparsity_of
from fedaq_server.schemes.spreads import samples_of
from fedaq_server.transport.client import Client

if TYPE_CHECKING:
    from fedaq_server.rounds.masking import Masking

T = TypeVar("T")

# For the chunks of all clients together. At any time two of each client's are held, and one more
# is on its way; of what goes down, gRPC has a copy of one. With ten clients and 10 M parameters
# they keep the server under 400 MB (docs/research/benchmarks-speed.md).
UPLINK_MEMORY_BYTES, DOWNLINK_MEMORY_BYTES = 5_760 * 1024, 11_520 * 1024


@dataclass(frozen=True)
class Differences:
    """Of a round in which clients are sent what their model lacks.

    Attributes
    ----------
    history : History
    catch_ups : dict of str to CatchUp
        What each client needs first, or instead.
    before : int
        Differences that were sent in earlier rounds.
    advanced : Future of bytes
        The digest of the model that all hold then; there once `history` is at it.
    """

    history: History
    catch_ups: dict[str, CatchUp]
    before: int
    advanced: asyncio.Future[bytes]


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes
    ----------
    federation : Federation
    clients : list of Client
        Those that take part, in the order of their names.
    weights : mapping of str to int
        Of each client's update.
    state : RoundState
        What was known when it began.
    plan : Plan
        What the scheme decided then.
    broadcast : Broadcast
        What goes down to all.
    differences : Differences, optional
        If the broadcast is a difference.
    aggregate : Aggregate or Gathered
        Where updates are added up.
    worker : Executor
        One thread: what works on the sum and on what clients hold needs no lock.
    capture : Capture, optional
    statistics : float32, shape (statistics,)
        Those of the model when the round began.
    chunk_bytes : int
        The largest chunk of an update.
    norm_limit : float
        The largest L2 norm of an update.
    magnitude_limit : float
        The largest sum of magnitudes of an update, from which follows what rounding adds to its
        norm.
    allowances : mapping of str to float
        Joules that the hop of each relay may take.
    started_s : float
        On the monotonic clock.
    masking : Masking, optional
        Where updates are masked; else each is seen.
    ranges : dict of str to tuple of Spread
        Of the updates that arrived whole, by client.
    norms : dict of str to float
        L2 norms of the updates that arrived whole, by client.
    magnitudes : dict of str to float
        Sums of the magnitudes of the updates as their clients reported them.
    charged : dict of str to int
        Payload bytes that each client's update took; those it was told to send at the most if
        it was not whole in time, for they may have cost energy too.
    declined : Counter of str
        Clients that were there and took no part, or gave it up, by the reason.
    unpaid : set of str
        Those that could not pay for the round, and were sent nothing.
    """

    federation: Federation
    clients: list[Client]
    weights: Mapping[str, int]
    state: RoundState
    plan: Plan
    broadcast: Broadcast
    differences: Differences | None
    aggregate: Aggregate | Gathered
    worker: Executor
    capture: Capture | None
    statistics: Floats
    chunk_bytes: int
    norm_limit: float
    magnitude_limit: float
    allowances: Mapping[str, float]
    started_s: float
    masking: "Masking | None" = None
    ranges: dict[str, tuple[Spread, ...]] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    magnitudes: dict[str, float] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)
    declined: Counter[str] = field(default_factory=Counter)
    unpaid: set[str] = field(default_factory=set)

    @property
    def number(self) -> int:
        """From 1."""
        return self.state.round

    @property
    def deadline_s(self) -> float:
        """Seconds that it may take."""
        return self.federation.settings.network.round_deadline_s

    @property
    def squeeze(self) -> bool:
        """Whether updates are entropy-coded; the length of one tells what is in it."""
        return self.federation.settings.entropy and self.state.release is None

    async def on_worker(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a step of the aggregation off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, function, *arguments)


async def begin(
    federation: Federation,
    number: int,
    clients: list[Client],
    worker: ThreadPoolExecutor,
    *,
    resumed: bool,
) -> Round | None:
    """Plan a round and begin to code what goes down; None if the scheme ends the run instead.

    `resumed` tells of the first round after the server was stopped.
    """
    if number == 1 or resumed:
        tell_what_is_not_counted(federation.accounts, clients)
    started_s, declined = time.monotonic(), federation.roster.declined()
    catch_ups = _catch_ups(federation, clients, resumed=resumed)
    going_down = await asyncio.to_thread(_going_down, federation, number)
    spreads = await asyncio.to_thread(payload.tensor_spreads, federation.spec, going_down)
    weights = _weights(federation, clients)
    samples = samples_of(federation.spec, going_down)
    known = await asyncio.to_thread(federation.ledger.ranges, weights)
    state = _state(federation, number, clients, weights, known, spreads, samples, catch_ups)
    # In a thread: with many clients and tensors it takes its time.
    plan = await asyncio.to_thread(federation.scheme.plan, state)
    if plan is None:
        return None
    settings, history = federation.settings, federation.history
    coding_began_s = time.monotonic()
    statistics = federation.model[federation.spec.statistics].copy()
    broadcast = await _broadcast(federation, state, plan, going_down, worker)
    differences = None
    if history is not None:
        before = history.sent.count
        advanced = asyncio.ensure_future(_advance(history, broadcast, worker))
        differences = Differences(history, catch_ups, before, advanced)
    aggregate = _aggregate(federation, weights)
    # Behind all coding of the broadcast, which reads the model, and before any update.
    cleared = worker.submit(aggregate.clear)
    cleared.add_done_callback(
        lambda _: federation.metrics.took("broadcast", time.monotonic() - coding_began_s)
    )
    return Round(
        federation=federation,
        clients=clients,
        weights=weights,
        state=state,
        plan=plan,
        broadcast=broadcast,
        differences=differences,
        aggregate=aggregate,
        worker=worker,
        capture=Capture(federation.ledger.folder / "payloads") if settings.capture else None,
        statistics=statistics,
        chunk_bytes=_chunk_bytes(settings, UPLINK_MEMORY_BYTES, len(clients)),
        norm_limit=federation.conduct.norm_limit(),
        magnitude_limit=federation.conduct.magnitude_limit(),
        allowances=allowances(clients, weights, state.relays_j, state.rounds - number + 1),
        started_s=started_s,
        declined=declined,
    )


def _catch_ups(
    federation: Federation, clients: list[Client], *, resumed: bool
) -> dict[str, CatchUp]:
    history = federation.history
    if history is None:
        return {}
    ways = {client.name: history.catch_up(client.holds, history.sent.count) for client in clients}
    if resumed:
        for client in clients:
            if ways[client.name].whole and client.holds:
                ways[client.name] = CatchUp(ahead=True)
    return ways


def _going_down(federation: Federation, number: int) -> Callable[[slice], Floats]:
    """Return what gives the values, at a slice, of what is to go down."""
    model, history = federation.model, federation.history
    values_at = model.__getitem__ if history is None else history.gain(model).__getitem__
    sparsity = sparsity_of(federation.settings)
    # What clients lack before the first round is no update.
    if sparsity is None or number == 1:
        return values_at
    return sparsity.kept_of(federation.spec, values_at).__getitem__


def _weights(federation: Federation, clients: list[Client]) -> dict[str, int]:
    if federation.settings.aggregation in ("median", "trimmed_mean"):
        return {client.name: 1 for client in clients}
    if federation.privacy is not None:
        return {client.name: 1 for client in clients}
    weights = federation.conduct.weights({client.name: client.examples for client in clients})
    return small_weights(weights) if federation.settings.common_grid else weights


def _state(
    federation: Federation,
    number: int,
    clients: list[Client],
    weights: Mapping[str, int],
    known: Mapping[str, tuple[Spread, ...]],
    spreads: tuple[Spread, ...],
    samples: tuple[Floats, ...],
    catch_ups: Mapping[str, CatchUp],
) -> RoundState:
    settings = federation.settings
    total = sum(weights.values())
    reporting = _reporting(federation, number, weights)
    states = {
        client.name: ClientState(
            client.name,
            federation.share * (weights[client.name] / total),
            client.cost(settings, number),
            known.get(client.name),
            client.most_price,
            client.name in reporting,
        )
        for client in clients
    }
    ways = {name: catch_ups.get(name, UP_TO_DATE) for name in states}
    receivers = [client.radio for name, client in states.items() if not ways[name].whole]
    down_j = downlink_j_per_bit(receivers, broadcast=settings.energy.broadcast)
    extra_j = catch_up_j(states, {name: way.payload_bytes for name, way in ways.items()})
    relays_j = reserved_j(federation.accounts, clients, extra_j)
    drawn = settings.taking_part / settings.clients
    return RoundState(
        round=number,
        rounds=settings.rounds,
        spec=federation.spec,
        downlink_ranges=spreads,
        differences=federation.history is not None,
        first_ranges=federation.first_ranges,
        downlink_samples=samples,
        clients=states,
        downlink_j_per_bit=down_j,
        share=federation.share,
        catch_up_j=extra_j + relays_j,
        relays_j=relays_j,
        purses=federation.accounts.purses(
            {
                name: Party(client.radio, ways[name].payload_bytes, not ways[name].whole)
                for name, client in states.items()
            },
            settings.rounds - number + 1,
            drawn,
            down_j,
            extra_j + relays_j,
        ),
        total_weight=total,
        release=_release(federation, len(clients)),
        absent_j_per_bit=_absent_j_per_bit(settings, states),
        drawn=drawn,
    )


def _absent_j_per_bit(settings: Settings, drawn: Mapping[str, ClientState]) -> float:
    """Return the `RoundState.absent_j_per_bit`, if radios are like those of the round."""
    absent = settings.clients - settings.taking_part
    if not absent:
        return 0.0
    each = [downlink_j_per_bit([client.radio], broadcast=False) for client in drawn.values()]
    return absent * sum(each) / len(each)


def _release(federation: Federation, clients: int) -> Release | None:
    account, settings = federation.privacy, federation.settings
    if account is None:
        return None
    masked = settings.privacy.secure_aggregation
    return account.release(private_values(federation.spec), clients, masked=masked)


def _reporting(federation: Federation, number: int, weights: Mapping[str, int]) -> frozenset[str]:
    """Return the clients whose statistics count: all where that of some is not a mean of them."""
    settings = federation.settings
    if federation.rule is not None or settings.common_grid or federation.history is None:
        return frozenset(weights)
    return reporters(weights, number, federation.conduct.apart)


def without_unpaid(current: Round) -> RoundState:
    """Return the state of a round as if those that were sent nothing had not been in it."""
    state, unpaid = current.state, current.unpaid
    if not unpaid:
        return state
    ways = {} if current.differences is None else current.differences.catch_ups
    clients = {name: client for name, client in state.clients.items() if name not in unpaid}
    receivers = [
        client.radio for name, client in clients.items() if not ways.get(name, UP_TO_DATE).whole
    ]
    broadcast = current.federation.settings.energy.broadcast
    return replace(
        state,
        clients=clients,
        downlink_j_per_bit=downlink_j_per_bit(receivers, broadcast=broadcast),
    )


def catch_up_j(clients: Mapping[str, ClientState], payload_bytes: Mapping[str, int]) -> float:
    """Return the joules of what some clients need besides or instead of the broadcast."""
    return sum(
        8 * extra * downlink_j_per_bit([clients[name].radio], broadcast=False)
        for name, extra in payload_bytes.items()
    )


async def _broadcast(
    federation: Federation,
    state: RoundState,
    plan: Plan,
    going_down: Callable[[slice], Floats],
    worker: ThreadPoolExecutor,
) -> Broadcast:
    settings, history, spreads = federation.settings, federation.history, state.downlink_ranges
    grant = granted_down(plan.downlink, state)
    ranges = payload.clipped_ranges(spreads, grant.bits) if plan.clip else spreads
    source = Source(
        going_down,
        settings.seed,
        state.round,
        b"" if history is None else history.digest,
        settings.entropy,
        _chunk_bytes(settings, DOWNLINK_MEMORY_BYTES, len(state.clients)),
        _use_of_codes(federation),
        None if history is None else history.past,
        settings.capture,
        None if history is None else history.held[federation.spec.statistics].copy(),
    )
    header = payload.plan_payload(federation.spec, grant.bits, ranges, grant.steps)
    return await begin_broadcast(header, source, grant.limit_bytes, worker)


def _use_of_codes(federation: Federation) -> Callable[[Payload, Content], None] | None:
    """Return what is done with the codes of the broadcast at once; None: kept for the end."""
    if federation.history is not None:
        return federation.history.add
    if federation.settings.added_to == "exact":
        return lambda header, content: None
    return None


def _chunk_bytes(settings: Settings, memory_bytes: int, clients: int) -> int:
    return min(settings.network.chunk_bytes, max(memory_bytes // clients, LEAST_CHUNK_BYTES))


def _aggregate(federation: Federation, weights: Mapping[str, int]) -> Aggregate | Gathered:
    folder = federation.ledger.folder
    if federation.rule is None:
        return Aggregate(federation.spec, sum(weights.values()), folder, federation.total)
    return Gathered(federation.spec, folder, federation.rule)


async def _advance(history: History, broadcast: Broadcast, worker: ThreadPoolExecutor) -> bytes:
    messages = [broadcast.header, *(frame.message for frame in await broadcast.coded())]
    payload_bytes = await broadcast.payload_bytes()
    await asyncio.get_running_loop().run_in_executor(
        worker, history.advance, broadcast.payload, messages, payload_bytes
    )
    return history.digest
