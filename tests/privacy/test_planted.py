"""What can be found out of a private sum: whether a client is in it, whose update is known.

Whoever looks knows the updates of all others, and their noise but for the fewest clients that the
protocol accepts. The two kinds of mistakes bound epsilon from below; that bound must not exceed
what the account says. Where the noise is too small, it does.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedaq.privacy.noise import discrete_gaussian
from fedaq_server.privacy.account import epsilon_of
from fedaq_server.privacy.release import Release
from fedaq_server.rounds.masking import fewest_of
from privacy.bounds import least_epsilon

RUNS, VALUES, CLIENTS, DELTA = 60_000, 12, 7, 1e-3
# That a bound is not one has a chance of so much.
CHANCE = 1e-6


def release_of(multiplier: float, *, masked: bool, adapts: bool) -> Release:
    return Release(1.0, multiplier, VALUES, CLIENTS, adapts, masked)


def planted_codes(release: Release) -> NDArray[np.int64]:
    """The longest update, in steps, that a client may send, in the direction of its first value."""
    codes = np.zeros(VALUES, np.int64)
    codes[0] = int(release.rounded)
    left = release.rounded**2 - codes[0] ** 2
    for at in range(1, VALUES):
        codes[at] = int(left**0.5)
        left -= codes[at] ** 2
    assert 0.98 * release.rounded <= np.linalg.norm(codes) <= release.rounded
    return codes


def looked(release: Release, planted: bool, quieter: float) -> NDArray[np.float64]:
    """How much each of many sums looks like it has the planted update in it."""
    codes = planted_codes(release)
    sums = np.zeros((RUNS, VALUES), np.int64)
    counts = np.zeros(RUNS, np.int64)
    if release.masked:
        fewest = fewest_of(CLIENTS)
        deviations, clients = release.shares(fewest), fewest - 1
    else:
        deviations, clients = (release.deviation, release.count_deviation), 1
    for _ in range(clients):
        noise = discrete_gaussian(deviations[0] / quieter, RUNS * VALUES)
        sums += noise.reshape(RUNS, VALUES)
        if release.adapts:
            counts += discrete_gaussian(deviations[1] / quieter, RUNS)
    if planted:
        sums += codes
        counts += 512 * release.adapts
    # The logarithm of the ratio of the likelihoods, but for a constant.
    ratio = sums @ codes / release.deviation**2
    if release.adapts:
        ratio = ratio + counts * 512 / release.count_deviation**2
    return np.asarray(ratio, np.float64)


def found_epsilon(without: NDArray[np.float64], planted: NDArray[np.float64]) -> float:
    """Return a lower bound on epsilon (one threshold, chosen on half of the runs)."""
    half = RUNS // 2
    thresholds = np.quantile(
        np.concatenate([without[:half], planted[:half]]), np.linspace(0, 1, 400)
    )

    def bound(part: slice, threshold: float) -> float:
        return least_epsilon(without[part] > threshold, planted[part] > threshold, DELTA, CHANCE)

    chosen = max(thresholds, key=lambda at: bound(slice(half), at))
    return bound(slice(half, None), chosen)


@pytest.mark.parametrize("adapts", [False, True], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("masked", [False, True], ids=["seen", "masked"])
@pytest.mark.parametrize("multiplier", [0.8, 2.0])
def test_a_planted_client_is_not_found_more_often_than_epsilon_allows(
    multiplier: float, masked: bool, adapts: bool
) -> None:
    release = release_of(multiplier, masked=masked, adapts=adapts)
    claimed = epsilon_of(multiplier, 1, DELTA)
    found = found_epsilon(looked(release, False, 1), looked(release, True, 1))
    # Near enough for the test to see what is wrong.
    assert 0.25 * claimed < found <= claimed


@pytest.mark.parametrize("masked", [False, True], ids=["seen", "masked"])
def test_it_is_found_where_the_noise_is_a_fifth(masked: bool) -> None:
    release = release_of(2.0, masked=masked, adapts=False)
    found = found_epsilon(looked(release, False, 5), looked(release, True, 5))
    assert found > 2 * epsilon_of(2.0, 1, DELTA)
