"""Draws of the discrete Gaussian against its exact probabilities."""

from collections.abc import Iterator
from math import hypot, pi, sqrt

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedaq.privacy import noise
from fedaq.privacy.noise import BITS, LEAST_SHARE, MOST_DEVIATION, discrete_gaussian

# A test that is right fails once in so many.
CHANCE = 1e-7


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "entropy", np.random.default_rng(5).bytes)


def probabilities(deviation: float, reach: int) -> NDArray[np.float64]:
    """Those of -reach to reach."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * deviation**2))
    return np.asarray(weights / weights.sum())


@pytest.mark.parametrize("deviation", [0.2, 0.7, 1.0, 4.0, 37.5])
def test_draws_have_the_probabilities(deviation: float) -> None:
    draws, reach = 400_000, int(12 * deviation) + 2
    expected = draws * probabilities(deviation, reach)
    drawn = discrete_gaussian(deviation, draws)
    assert np.abs(drawn).max() <= reach
    seen = np.bincount(drawn + reach, minlength=2 * reach + 1).astype(float)
    usual = expected >= 5
    cells = np.append(seen[usual], seen[~usual].sum())
    wanted = np.append(expected[usual], expected[~usual].sum())
    kept = wanted > 0
    found = stats.chisquare(cells[kept], wanted[kept], sum_check=False)
    assert found.pvalue > CHANCE


@pytest.mark.parametrize("deviation", [5000.0, 70_000.0, MOST_DEVIATION])
def test_wide_noise_is_as_exact(deviation: float) -> None:
    """The sum of two draws: as a whole, and modulo the number by which one is multiplied."""
    draws, bins = 200_000, 64
    drawn = discrete_gaussian(deviation, draws)
    edges = stats.norm.ppf(np.linspace(0, 1, bins + 1)) * deviation
    # A discrete Gaussian so wide differs from the continuous one by the width of a cell.
    seen, _ = np.histogram(drawn + np.random.default_rng(1).uniform(-0.5, 0.5, draws), edges)
    assert stats.chisquare(seen).pvalue > CHANCE
    factor = int(np.ceil(deviation / noise.MOST_TABLE))
    assert stats.chisquare(np.bincount(drawn % factor, minlength=factor)).pvalue > CHANCE


def test_a_table_is_exact_to_its_last_bits() -> None:
    deviation = 3.25
    table = noise._table(deviation)
    with mpmath.workdps(60):
        s = mpmath.mpf(deviation)
        weights = [mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * s**2)) for x in range(-200, 201)]
        total, upto, worst = sum(weights), mpmath.mpf(0), mpmath.mpf(0)
        for x, weight in zip(range(-200, 201), weights, strict=True):
            upto += weight / total
            at = x - table.first
            if 0 <= at < len(table.upto):
                worst = max(worst, abs(table.upto[at] - upto * 2**BITS))
    assert worst < 4


def test_where_64_bits_do_not_tell_more_do(monkeypatch: pytest.MonkeyPatch) -> None:
    table = noise._table(2.0)
    at = len(table.upto) // 2
    boundary, rest = divmod(table.upto[at], 2 ** (BITS - 64))

    def drawn(more: int) -> int:
        answers = iter((boundary.to_bytes(8, "little"), more.to_bytes(8, "little")))
        monkeypatch.setattr(noise, "entropy", lambda size: next(answers))
        return int(noise._drawn(table, 1)[0]) - table.first

    assert drawn(rest - 1) == at
    assert drawn(rest) == at + 1


def test_two_tables_make_one_deviation(fixed: None) -> None:
    drawn = discrete_gaussian(3 * noise.MOST_TABLE, 400_000)
    assert drawn.std() == pytest.approx(3 * noise.MOST_TABLE, rel=0.01)
    assert abs(drawn.mean()) < 6 * 3 * noise.MOST_TABLE / sqrt(400_000)


@pytest.mark.parametrize("deviation", [0.0, -1.0, 2 * MOST_DEVIATION, float("nan")])
def test_noise_that_cannot_be_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="noise of deviation"):
        discrete_gaussian(deviation, 3)


def test_noise_does_not_follow_from_a_seed() -> None:
    np.random.seed(1)
    first = discrete_gaussian(20.0, 100)
    np.random.seed(1)
    assert not np.array_equal(first, discrete_gaussian(20.0, 100))


@pytest.fixture(params=[2, 10, 100_000])
def clients(request: pytest.FixtureRequest) -> Iterator[int]:
    yield request.param


def test_a_sum_of_shares_is_a_discrete_gaussian(clients: int) -> None:
    """The tau of Kairouz et al. for the smallest share, which is all by which the two differ."""
    terms = (mpmath.exp(-2 * mpmath.pi**2 * LEAST_SHARE**2 * k / (k + 1)) for k in range(1, 50))
    # The later terms are each below the limit of them all.
    rest = clients * mpmath.exp(-2 * mpmath.pi**2 * LEAST_SHARE**2 * 50 / 51)
    tau = 10 * (sum(terms) + rest)
    values = 10**9
    # That much is added to the epsilon of a concentrated release: less than a rounding of it.
    assert float(tau * mpmath.sqrt(values)) < 1e-50


def test_two_tables_differ_from_one_by_nothing() -> None:
    """What Gaussian sums over the integers vary by, where the widest noise is made of two."""
    factor = int(np.ceil(MOST_DEVIATION / noise.MOST_TABLE))
    inner = MOST_DEVIATION / hypot(1, factor) / hypot(1, factor)
    assert -2 * pi**2 * inner**2 < -250
