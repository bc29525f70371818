"""The quality of the quantizer's random numbers.

Every statistic below is, for ideal random numbers, close to a standard normal one.
"""

from itertools import combinations
from math import sqrt

import numpy as np
import pytest

from common.loop_oracles import Codes, dequantize, dithers, quantize, random_codes
from fedaq.codec.quantizer import Key, derive_key

pytestmark = pytest.mark.usefixtures("level")

COUNT = 1 << 18
LIMIT = 5.0


def chi_square_score(cells: Codes, number: int) -> float:
    """Return how far the counts of equally likely cells are from even, in deviations."""
    counts = np.bincount(cells, minlength=number)
    expected = cells.size / number
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return (statistic - (number - 1)) / sqrt(2 * (number - 1))


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_dithers_are_uniform_and_neighbours_independent(bits: int) -> None:
    for number in range(4):
        dither = dithers(derive_key(bits, number), bits, 4 * COUNT)
        assert chi_square_score((dither * 256).astype(np.int64), 256) < LIMIT
        cell = (dither * 32).astype(np.int64)
        for lag in (1, 2, 3, 7, 8, 64, 1024):
            assert chi_square_score(cell[:-lag] * 32 + cell[lag:], 1024) < LIMIT


def independence_score(one: Key, other: Key) -> float:
    cells = [(dithers(key, 4, COUNT) * 32).astype(np.int64) for key in (one, other)]
    return abs(chi_square_score(cells[0] * 32 + cells[1], 1024))


def test_dithers_of_different_transfers_are_independent() -> None:
    keys = [derive_key(1, "uplink", f"client-{n}", 1, 0) for n in range(12)]
    assert max(independence_score(*pair) for pair in combinations(keys, 2)) < LIMIT


def test_dithers_of_a_key_and_of_one_that_differs_in_a_bit_are_independent() -> None:
    key = derive_key(1)
    for bit in range(32):
        assert independence_score(key, Key(key.word0 ^ 1 << bit, key.word1)) < LIMIT
        assert independence_score(key, Key(key.word0, key.word1 ^ 1 << bit)) < LIMIT


@pytest.mark.parametrize("bits", range(1, 17))
def test_rounding_is_unbiased_wherever_a_value_lies_between_two_codes(bits: int) -> None:
    """Seen through the kernels: the mean error, and its correlation with the position."""
    codes = random_codes(bits, COUNT, bits) % max(2**bits - 1, 1)
    # A position of 24 bits is exact in float32, so only the dither can be at fault.
    fraction = np.random.default_rng(bits).integers(0, 2 ** (24 - bits), COUNT) / 2 ** (24 - bits)
    position = codes + fraction
    data = quantize(position.astype(np.float32), 0.0, 1.0, bits, derive_key(bits))
    error = dequantize(data, bits, 0.0, 1.0, COUNT) - position
    assert np.abs(error).max() < 1
    deviation = np.sqrt((fraction * (1 - fraction)).sum())
    assert abs(error.sum()) < LIMIT * deviation
    assert abs((error * (fraction - 0.5)).sum()) < LIMIT * deviation / 2
    assert abs((error[1:] * error[:-1]).sum()) < LIMIT * np.sqrt(COUNT) / 6


@pytest.mark.parametrize("power", [6, 10, 14])
def test_a_small_fraction_is_rounded_up_as_often_as_it_should_be(power: int) -> None:
    """And never below: a value on a code keeps it."""
    count = 1 << 21
    values = np.full(count, 2.0**-power, np.float32)
    for number, bits in enumerate((1, 8)):
        ones = dequantize(quantize(values, 0.0, 1.0, bits, Key(number, power)), bits, 0, 1, count)
        expected = count / 2**power
        assert abs(ones.sum() - expected) < LIMIT * np.sqrt(expected)
