"""Several budgets at once, against brute force and the conditions of an optimum."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from fedaq_server.schemes.prices import Bounds, Demand, OwnShares, Prices, RunShares, prices
from fedaq_server.schemes.spreads import Array

# Values of each update and of the broadcast, in an alphabet where the closed form is exact:
# n bytes bring the noise c d 4**(-8 n / d).
VALUES = 40.0
STEP = 0.1
NO_OWN = OwnShares(np.array([], np.int64), np.array([]), np.array([]), np.array([]))


def noise(coefficients: Array, bytes_: Array) -> Array:
    """The noise that is left of each sender; the last is the broadcast."""
    left: Array = coefficients * VALUES * 4.0 ** (-8 * bytes_ / VALUES)
    return left


def bytes_at(coefficients: Array, price: Array) -> Array:
    """Where one more byte removes less noise than its price; never less than none."""
    rate = 8 * np.log(4) / VALUES
    found: Array = np.maximum(np.log(coefficients * VALUES * rate / price) / rate, 0.0)
    return found


def demand(coefficients: Array) -> Demand:
    return Demand(
        lambda price: bytes_at(coefficients[:-1], price),
        lambda price: float(bytes_at(coefficients[-1:], np.array([price]))[0]),
    )


def free(senders: int) -> Bounds:
    return Bounds(np.full(senders, 1e-12), np.full(senders, 1e12), 1e-12)


def taken(weights: Array, found: Prices, bought: Demand) -> Array:
    """What the round takes of every budget."""
    amounts = np.append(bought.up(found.up), bought.down(found.down))
    used: Array = np.sum(weights * amounts, axis=1)
    return used


def rows(run: RunShares, own: OwnShares) -> tuple[Array, Array]:
    """All budgets as rows of weights, the broadcast last, and what each may take."""
    senders = run.up.shape[1]
    single = np.zeros((len(own.share), senders + 1))
    single[np.arange(len(own.share)), own.sender] = own.up
    single[:, -1] = own.down
    return np.vstack((np.column_stack((run.up, run.down)), single)), np.append(run.share, own.share)


positive = st.floats(0.2, 5.0)
CASES = st.fixed_dictionaries(
    {
        "coefficients": st.lists(positive, min_size=3, max_size=3),
        "joules": st.lists(positive, min_size=3, max_size=3),
        "money": st.lists(positive, min_size=3, max_size=3),
        "share": st.lists(st.floats(0.3, 1.0), min_size=2, max_size=2),
        "battery": st.lists(st.floats(0.3, 1.0), min_size=2, max_size=2),
    }
)


def posed(case: dict[str, list[float]]) -> tuple[Array, RunShares, OwnShares]:
    """Two senders and a broadcast, joules and money of the run, and a battery each."""
    weights = np.array([case["joules"], case["money"]])
    share = np.array(case["share"]) * 8 * np.sum(weights, axis=1)
    run = RunShares(weights[:, :2], weights[:, 2], share)
    own = OwnShares(
        np.array([0, 1]), np.array([1.0, 2.0]), np.zeros(2), 6 * np.array(case["battery"])
    )
    return np.array(case["coefficients"]), run, own


@given(CASES)
@profile(max_examples=10, deadline=None)
def test_no_other_bytes_within_all_budgets_leave_less_noise(case: dict[str, list[float]]) -> None:
    coefficients, run, own = posed(case)
    bought = demand(coefficients)
    found = prices(bought, run, own, free(2))
    weights, shares = rows(run, own)
    assert np.all(taken(weights, found, bought) <= shares * (1 + 1e-3))
    ours = np.sum(noise(coefficients, np.append(bought.up(found.up), bought.down(found.down))))
    # What else the budgets pay for: every choice of two, and all that is left for the third.
    most = np.min(np.where(weights > 0, shares[:, None] / np.maximum(weights, 1e-12), np.inf), 0)
    grid = [np.arange(0, most[sender] + STEP, STEP) for sender in range(2)]
    best = np.inf
    for up in product(*grid):
        left = shares - weights[:, :2] @ np.array(up)
        if np.all(left >= 0):
            last = np.min(np.where(weights[:, 2] > 0, left / np.maximum(weights[:, 2], 1e-12), 1e9))
            best = min(best, float(np.sum(noise(coefficients, np.array([*up, last])))))
    assert ours <= best * (1 + 1e-3)


@given(CASES)
@profile(max_examples=20, deadline=None)
def test_what_does_not_bind_has_no_price(case: dict[str, list[float]]) -> None:
    coefficients, run, own = posed(case)
    bought = demand(coefficients)
    found = prices(bought, run, own, free(2))
    weights, shares = rows(run, own)
    multipliers = np.append(found.run, found.own)
    # Where a budget has a price, it is used up.
    unused = np.sum(multipliers * np.abs(shares - taken(weights, found, bought)))
    assert unused <= 1e-2 * np.sum(multipliers * shares)
    np.testing.assert_allclose(
        np.append(found.up, found.down), np.maximum(multipliers @ weights, 1e-12), rtol=1e-6
    )


def test_a_poor_device_alone_pays_more() -> None:
    coefficients = np.ones(4)
    run = RunShares(np.ones((1, 3)), np.array([3.0]), np.array([60.0]))
    rich = prices(demand(coefficients), run, NO_OWN, free(3))
    battery = OwnShares(np.array([1]), np.ones(1), np.zeros(1), np.array([2.0]))
    poor = prices(demand(coefficients), run, battery, free(3))
    assert poor.up[1] > rich.up[1]
    # What it leaves of the run's joules, the others spend.
    assert poor.up[0] < rich.up[0]
    assert demand(coefficients).up(poor.up)[1] == pytest.approx(2.0, rel=1e-3)


def test_a_device_that_pays_to_listen_makes_the_broadcast_dearer() -> None:
    coefficients = np.ones(3)
    none = RunShares(np.zeros((0, 2)), np.array([]), np.array([]))
    battery = OwnShares(np.array([0]), np.ones(1), np.ones(1), np.array([15.0]))
    bounds = Bounds(np.full(2, 1e-3), np.full(2, 1e12), 1e-3)
    bought = demand(coefficients)
    found = prices(bought, none, battery, bounds)
    assert found.down == pytest.approx(1e-3 + found.own[0], rel=1e-6)
    assert bought.up(found.up)[0] + bought.down(found.down) == pytest.approx(15.0, rel=1e-2)
    assert found.up[1] == 1e-3


def test_nobody_is_priced_beyond_what_is_useful() -> None:
    battery = OwnShares(np.array([0]), np.ones(1), np.zeros(1), np.array([1e-3]))
    none = RunShares(np.zeros((0, 1)), np.array([]), np.array([]))
    bounds = Bounds(np.array([0.01]), np.array([0.5]), 0.01)
    assert prices(demand(np.ones(2)), none, battery, bounds).up[0] == pytest.approx(0.5, rel=1e-3)
