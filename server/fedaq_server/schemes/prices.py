"""Several budgets at once: a multiplier for each that binds, and what a byte costs then.

The effective price of a byte is the sum over all budgets of multiplier times weight, where the
weight is what the byte takes of the budget (docs/research/theory.md, section 11). The multipliers
solve the dual problem, which is convex: one after the other is set to the least at which its
budget is kept, until none moves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedaq_server.schemes.spreads import Array

# More than any run needs: few budgets pull at one another.
_SWEEPS = 40
_CONVERGED = 1e-4
# Of the logarithm of a price: to a hundred-thousandth of it. What goes down takes long to ask for.
_BISECTIONS = 24
_LEAST, _MOST = 1e-30, 1e30


@dataclass(frozen=True)
class Demand:
    """The bytes that are bought at a price of a byte; they fall as it rises.

    Attributes
    ----------
    up : callable
        Takes the prices of the senders' bytes, float64 of shape (senders,), and returns the bytes
        of each update.
    down : callable
        Takes the price of a byte of the broadcast and returns its bytes.
    """

    up: Callable[[Array], Array]
    down: Callable[[float], float]


@dataclass(frozen=True)
class RunShares:
    """Budgets that all senders share.

    Attributes
    ----------
    up : float64, shape (budgets, senders)
        What a byte of an update takes of each.
    down : float64, shape (budgets,)
        What a byte of the broadcast takes.
    share : float64, shape (budgets,)
        What the round may take.
    """

    up: Array
    down: Array
    share: Array


@dataclass(frozen=True)
class OwnShares:
    """Budgets of single senders.

    Attributes
    ----------
    sender : int64, shape (budgets,)
        Place of whose each is.
    up, down, share : float64, shape (budgets,)
        As of `RunShares`.
    """

    sender: NDArray[np.int64]
    up: Array
    down: Array
    share: Array


@dataclass(frozen=True)
class Bounds:
    """Prices between which those of bytes lie.

    Attributes
    ----------
    least_up, most_up : float64, shape (senders,)
        `most_up` bounds what a sender's own budgets can do: a finer update than they pay for is
        worth more than another one later.
    least_down : float
    """

    least_up: Array
    most_up: Array
    least_down: float


@dataclass(frozen=True)
class Prices:
    """Prices of bytes, and the multipliers that they are made of.

    Attributes
    ----------
    up : float64, shape (senders,)
    down : float
    run, own : float64, shape (budgets,)
        0 where a budget does not bind.
    """

    up: Array
    down: float
    run: Array
    own: Array


def prices(demand: Demand, run: RunShares, own: OwnShares, bounds: Bounds) -> Prices:
    """Return the prices at which every budget that can be kept is.

    One of a single sender cannot where even `most_up` or the broadcast exceeds its share.
    """
    now = _priced(run, own, bounds, np.zeros(len(run.share)), np.zeros(len(own.share)))
    for _ in range(_SWEEPS):
        before = now
        for place in range(len(run.share)):
            now = _keep(demand, run, own, bounds, now, place)
        now = _keep_own(demand, run, own, bounds, now)
        moved = np.abs(np.log(np.append(now.up, now.down) / np.append(before.up, before.down)))
        if np.max(moved) < _CONVERGED:
            break
    return now


def _priced(
    run: RunShares, own: OwnShares, bounds: Bounds, multipliers: Array, of_own: Array
) -> Prices:
    up = _run_prices(run, bounds, multipliers)
    down = max(float(np.sum(multipliers * run.down)), bounds.least_down)
    np.add.at(up, own.sender, of_own * own.up)
    return Prices(up, down + float(np.sum(of_own * own.down)), multipliers, of_own)


def _run_prices(run: RunShares, bounds: Bounds, multipliers: Array) -> Array:
    # Not `@`: it adds in an order that depends on the processor.
    shared: Array = np.sum(multipliers[:, None] * run.up, axis=0)
    return np.maximum(shared, bounds.least_up)


def _keep(
    demand: Demand, run: RunShares, own: OwnShares, bounds: Bounds, now: Prices, place: int
) -> Prices:
    """Return prices with the least multiplier at which one budget of the run is kept."""

    def at(multiplier: float) -> Prices:
        multipliers = now.run.copy()
        multipliers[place] = multiplier
        return _priced(run, own, bounds, multipliers, now.own)

    def excess(multiplier: float) -> float:
        tried = at(multiplier)
        taken = np.sum(run.up[place] * demand.up(tried.up)) + run.down[place] * demand.down(
            tried.down
        )
        return float(taken - run.share[place])

    if excess(0.0) <= 0:
        return at(0.0)
    low, high = np.log(_LEAST), np.log(_MOST)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(float(np.exp(middle))) <= 0 else (middle, high)
    return at(float(np.exp(high)))


def _keep_own(
    demand: Demand, run: RunShares, own: OwnShares, bounds: Bounds, now: Prices
) -> Prices:
    """Return prices with the least multipliers at which senders keep their own budgets.

    Of several budgets of one sender, the tightest alone has one.
    """
    if not len(own.share):
        return now
    before = _run_prices(run, bounds, now.run)
    left = np.maximum(own.share - own.down * demand.down(now.down), 0.0)
    most = np.divide(left, own.up, out=np.full_like(left, np.inf), where=own.up > 0)
    tightest = np.full(len(before), np.inf)
    np.minimum.at(tightest, own.sender, most)
    low = np.log(before)
    high = np.maximum(np.log(bounds.most_up), low)
    fits = demand.up(before) <= tightest
    high = np.where(fits, low, high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        kept = demand.up(np.exp(middle)) <= tightest
        low, high = np.where(kept, low, middle), np.where(kept, middle, high)
    dearer = np.exp(high) - before
    dearer[fits] = 0.0
    binds = (most == tightest[own.sender]) & (own.up > 0)
    first = np.zeros(len(binds), bool)
    places = np.flatnonzero(binds)
    first[places[np.unique(own.sender[places], return_index=True)[1]]] = True
    multipliers = np.zeros(len(own.share))
    multipliers[first] = dearer[own.sender[first]] / own.up[first]
    return _priced(run, own, bounds, now.run, multipliers)
