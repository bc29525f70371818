"""Several budgets at once: a multiplier for each that binds, and what a byte costs then.

The effective price of a byte is the sum over all budgets of multiplier times weight, where the
weight is what the byte takes of the budget (docs/research/theory.md, section 11). The multipliers
solve the dual problem, which is convex: one of the run after the other is set to the least at which
its budget is kept, until none moves; those of single senders follow from these at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedaq_server.schemes.spreads import Array

# More than any run needs: few budgets pull at one another.
_SWEEPS = 40
# Of the largest multiplier.
_CONVERGED = 1e-4
# Of the logarithm of a price: to a hundred-thousandth of it.
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
    now = _keep_own(demand, run, own, bounds, np.zeros(len(run.share)))
    for _ in range(_SWEEPS):
        before = now
        for place in range(len(run.share)):
            now = _keep(demand, run, own, bounds, now, place)
        # Prices may stand still while one budget still takes over from another.
        moved = np.abs(now.run - before.run)
        if len(moved) < 2 or np.max(moved) <= _CONVERGED * np.max(now.run):
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
    """Return prices with the least multiplier at which one budget of the run is kept.

    The senders' own multipliers follow from it: where those bind, it changes no price of theirs.
    """

    def at(multiplier: float) -> Prices:
        multipliers = now.run.copy()
        multipliers[place] = multiplier
        return _keep_own(demand, run, own, bounds, multipliers)

    def is_kept(multiplier: float) -> bool:
        tried = at(multiplier)
        taken = float(np.sum(run.up[place] * demand.up(tried.up)))
        if run.down[place]:
            taken += float(run.down[place]) * demand.down(tried.down)
        return taken <= float(run.share[place])

    if is_kept(0.0):
        return at(0.0)
    return at(_least(is_kept, float(now.run[place])))


def _least(is_kept: Callable[[float], bool], guess: float) -> float:
    """Return the least positive number that is enough, near a guess if there is one."""
    low, high = _LEAST, _MOST
    if guess:
        reach = 2.0
        low = high = guess
        while high < _MOST and not is_kept(high):
            low, high, reach = high, high * reach, reach**2
        while low == high or (low > _LEAST and is_kept(low)):
            low, high, reach = low / reach, low, reach**2
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if is_kept(middle) else (middle, high)
    return high


def _keep_own(
    demand: Demand, run: RunShares, own: OwnShares, bounds: Bounds, multipliers: Array
) -> Prices:
    """Return prices with the least multipliers at which senders keep their own budgets."""
    shared = _run_prices(run, bounds, multipliers)
    if not len(own.share):
        return _priced(run, own, bounds, multipliers, own.share)

    def at(down: float) -> Prices:
        """Return what follows where a byte of the broadcast has this price."""
        listening = own.down * demand.down(down) if own.down.any() else own.down
        left = np.maximum(own.share - listening, 0.0)
        of_own = _own_multipliers(demand, own, bounds, shared, left)
        return _priced(run, own, bounds, multipliers, of_own)

    low = max(float(np.sum(multipliers * run.down)), bounds.least_down)
    found = at(low)
    if found.down <= low:
        return found
    # The dearer a byte of the broadcast, the fewer there are, and the less is it raised.
    high = found.down
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        found = at(middle)
        low, high = (middle, high) if found.down > middle else (low, middle)
    return found


def _own_multipliers(
    demand: Demand, own: OwnShares, bounds: Bounds, before: Array, left: Array
) -> Array:
    """Return the multipliers with which updates take what is left, at prices `before` without them.

    Of several budgets of one sender, the tightest alone has one.
    """
    most = np.divide(left, own.up, out=np.full_like(left, np.inf), where=own.up > 0)
    tightest = np.full(len(before), np.inf)
    np.minimum.at(tightest, own.sender, most)
    fits = demand.up(before) <= tightest
    low = np.log(before)
    high = np.where(fits, low, np.maximum(np.log(bounds.most_up), low))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        kept = demand.up(np.exp(middle)) <= tightest
        low, high = np.where(kept, low, middle), np.where(kept, middle, high)
    dearer = np.where(fits, 0.0, np.exp(high) - before)
    binds = np.flatnonzero((most == tightest[own.sender]) & (own.up > 0))
    first = binds[np.unique(own.sender[binds], return_index=True)[1]]
    multipliers = np.zeros(len(own.share))
    multipliers[first] = dearer[own.sender[first]] / own.up[first]
    return multipliers
