"""What those who watch a run are shown, and what of it changed since they last looked.

All of it is plain data that never changes, so that it can be handed to another thread.
"""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from math import ceil, isfinite
from typing import Any

from fedaq.errors import printable
from fedaq.settings import flattened
from fedaq_server.records.record import value_of
from fedaq_server.transport.rate_limit import TurnedAway

# Rows of clients that one viewer is kept up to date on.
CLIENTS_SHOWN = 100
# Rounds that a curve needs; of more, every second, third, ... is sent to who begins to watch.
POINTS = 250
# Points that are kept of a run that goes on.
MOST_KEPT = 4 * POINTS
# Characters of a setting or a name that are shown.
LONGEST = 100
# Rounds that tell how a run without a budget goes on.
RECENT = 5

Point = tuple[float | None, ...]
# What a point holds; the metric is the task's, energy, payload bytes and epsilon are sums from the
# first round on.
POINT_FIELDS = (
    "round", "metric", "loss", "train_loss", "uplink_bits", "downlink_bits", "energy_j",
    "uplink_bytes", "downlink_bytes", "clients", "left_out", "seconds", "epsilon",
)  # fmt: skip


@dataclass(frozen=True)
class ClientView:
    """One client.

    Attributes
    ----------
    state : str
        A `Phase` of a round, or ``set aside``, ``declined: `` and a `Reason`, ``lost``, ``left``,
        ``empty`` or ``shut out``.
    radio : str
        The energy model's name for it, ``own`` where the client stated its cost itself.
    j_per_bit : float
        Joules per uplink bit.
    uplink_bits, downlink_bits : float
        Bits per value of its last transfers.
    uplink_bytes, downlink_bytes : int
        Payload so far.
    seen_at : float, optional
        When it was last heard of, in seconds since 1970; None while it is heard of in time.
    refusals : int
        Refusals that it was sent.
    reason : str
        What the last refusal said, the detail of a decline, or why the client is empty or shut out.
    relayed : int, optional
        Clients for whom it speaks, if it is a relay.
    """

    state: str
    radio: str = ""
    j_per_bit: float = 0.0
    uplink_bits: float = 0.0
    downlink_bits: float = 0.0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    seen_at: float | None = None
    refusals: int = 0
    reason: str = ""
    relayed: int | None = None


@dataclass(frozen=True)
class Status:
    """Where a run is.

    Attributes
    ----------
    phase : str
        ``waiting`` for clients, ``training``, ``over``, or ``stopped`` before its last round.
    round : int
        That it is in, or waits to begin.
    ready, wanted : int
        Clients that are there, and must be; 0 are wanted while a round is going on.
    """

    phase: str
    round: int
    ready: int = 0
    wanted: int = 0


@dataclass(frozen=True)
class Forecast:
    """What a whole run will have taken when it ends, and who says so.

    Attributes
    ----------
    energy_j : float
    by : str
        ``scheme``, which plans ahead where there is a budget; ``recent rounds`` where those
        were continued.
    """

    energy_j: float
    by: str


@dataclass(frozen=True)
class View:
    """A run at one moment.

    Attributes
    ----------
    at : float
        Seconds since 1970; no part of what is compared.
    run : mapping
        What does not change: task, metric, scheme, settings.
    trouble : str
        What of the last model is not finite.
    client_metrics : str
        What clients' own tests gave in the last round, in words.
    """

    at: float = field(compare=False)
    run: Mapping[str, Any]
    status: Status
    points: tuple[Point, ...] = ()
    forecast: Forecast | None = None
    clients: Mapping[str, ClientView] = field(default_factory=dict)
    turned_away: tuple[TurnedAway, ...] = ()
    trouble: str = ""
    client_metrics: str = ""


@dataclass
class Sums:
    """Joules and payload bytes of the rounds so far.

    Attributes
    ----------
    metric : str
        The name of the one that is shown.
    """

    metric: str
    energy_j: float = 0.0
    uplink_bytes: int = 0
    downlink_bytes: int = 0

    def point(self, each: Mapping[str, Any]) -> Point:
        """Add a round, as ``run.json`` has it, and return its point."""
        self.energy_j += each["energy_j"]
        self.uplink_bytes += each["uplink_payload_bytes"]
        self.downlink_bytes += each["downlink_payload_bytes"]
        return (
            int(each["round"]),
            _short(value_of(each, self.metric)),
            _short(each["test_loss"]),
            _short(each["train_loss"]),
            _short(each["uplink_bits"]),
            _short(each["downlink_bits"]),
            _short(self.energy_j),
            self.uplink_bytes,
            self.downlink_bytes,
            int(each["clients"]),
            int(each["left_out"]),
            _short(each["seconds"]),
            _short(each.get("epsilon", 0.0)),
        )


def thinned(all_points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """Return so many points at the most, evenly chosen, the last one among them."""
    step = max(1, ceil(len(all_points) / most))
    return list(all_points[::-1][::step][::-1])


def bounded(all_points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Return points for which there is room: of too many, the old ones in even steps only."""
    if len(all_points) <= MOST_KEPT:
        return all_points
    # A power of two: what is kept now can be kept when there are more, too.
    step = 1 << (int(all_points[-1][0] or 0) // (2 * POINTS)).bit_length()
    old = (point for point in all_points[:-POINTS] if not (point[0] or 0) % step)
    return (*old, *all_points[-POINTS:])


def forecast(all_points: Sequence[Point], rounds: int, planned_j: float | None) -> Forecast | None:
    """Return what a run of so many rounds will have taken; None before there is a sign of it.

    Parameters
    ----------
    all_points : sequence of Point
    rounds : int
    planned_j : float, optional
        For the whole run, by the scheme.
    """
    if planned_j is not None:
        return Forecast(_rounded(planned_j), "scheme")
    if not all_points:
        return None
    spent = [point[6] or 0.0 for point in all_points[-RECENT - 1 :]]
    if len(all_points) <= RECENT:
        spent.insert(0, 0.0)
    per_round_j = (spent[-1] - spent[0]) / (len(spent) - 1)
    left = rounds - int(all_points[-1][0] or 0)
    return Forecast(_rounded(spent[-1] + per_round_j * left), "recent rounds")


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings by their dotted names, in words."""
    return {
        printable(name)[:LONGEST]: printable(_in_words(value))[:LONGEST]
        for name, value in flattened(settings).items()
    }


def _in_words(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def changes(before: View | None, now: View, first: int = 0) -> dict[str, Any]:
    """Return what a viewer who was shown `before` must be told to see `now`.

    Parameters
    ----------
    before : View, optional
        None for one who has seen nothing.
    now : View
    first : int
        Place of the first client that the viewer sees, in the order of their names.
    """
    message: dict[str, Any] = {}
    if before is None:
        message = {"at": round(now.at, 1), "run": now.run, "points": thinned(now.points)}
    elif new := _after(before.points[-1][0] if before.points else 0, now.points):
        message["points"] = thinned(new)
    if before is None or now.status != before.status:
        message["status"] = asdict(now.status)
    if now.forecast and (before is None or now.forecast != before.forecast):
        message["forecast"] = asdict(now.forecast)
    if now.turned_away and (before is None or now.turned_away != before.turned_away):
        message["turned_away"] = [asdict(each) for each in now.turned_away]
    for name in ("trouble", "client_metrics"):
        if getattr(now, name) != ("" if before is None else getattr(before, name)):
            message[name] = getattr(now, name)
    clients = _client_changes(before, now, first)
    if clients:
        message["clients"] = clients
    if len(now.clients) > CLIENTS_SHOWN or first:
        counts = _counts(now)
        if before is None or counts != _counts(before):
            message["counts"] = counts
    return message


def _after(last: float | None, points: Sequence[Point]) -> Sequence[Point]:
    """Return the points of later rounds than `last`."""
    return points[bisect_right(points, last or 0, key=lambda point: point[0] or 0) :]


def _client_changes(before: View | None, now: View, first: int) -> dict[str, Any]:
    """Return the new values of each client, and null for one that is shown no more."""
    then = {} if before is None else _window(before, first)
    shown = _window(now, first)
    gone = dict.fromkeys(then.keys() - shown.keys())
    changed = {}
    for name, client in shown.items():
        known = then.get(name)
        if known is None:
            changed[name] = asdict(client)
            if client.relayed is None:  # of most clients: hundreds are shown at once
                del changed[name]["relayed"]
        elif known != client:
            old = vars(known)
            changed[name] = {key: value for key, value in vars(client).items() if value != old[key]}
    return {**gone, **changed}


def _window(view: View, first: int) -> dict[str, ClientView]:
    return dict(islice(view.clients.items(), first, first + CLIENTS_SHOWN))


def _counts(view: View) -> dict[str, int]:
    return dict(Counter(client.state for client in view.clients.values()))


def _short(value: float | None) -> float | None:
    """Return a number that takes few characters; None for what JSON does not have."""
    return None if value is None or not isfinite(value) else _rounded(value)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def compact(value: Any) -> bytes:
    """Return JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
