"""The loops that put values in classes, against the written format.

`wire.oracle_classes` is written from docs/reference/wire-format.md. Sizes reach over what vectors
hold, and over several blocks.
"""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.loop_oracles import WIDTHS, packed
from fedaq.codec import kernels
from wire import oracle_classes

pytestmark = pytest.mark.usefixtures("level")
WORDS = st.integers(0, 2**32 - 1)
TURNED = 128
# Of native/common.h.
DECODE_BLOCK = 4096
SEEDS = st.integers(0, 2**32 - 1)


def shown(known: oracle_classes.Class) -> int:
    """Return a class as the loops write it."""
    return known[0] + TURNED * known[1]


# ---- The number that rounds a value ---------------------------------------------


def classes_of(first: int, bits: int, key0: int, key1: int, count: int) -> list[int]:
    found = np.full(count, 0xA5, np.uint8)
    kernels.dither_classes(first, bits, key0, key1, found)
    return found.tolist()


@given(WORDS, WIDTHS, WORDS, WORDS, st.integers(0, 150))
@example(2**32 - 70, 4, 1, 2, 140)
def test_classes_of_an_update_are_those_of_the_page(
    first: int, bits: int, key0: int, key1: int, count: int
) -> None:
    expected = [
        shown(oracle_classes.dither_class(first + i, bits, key0, key1)) for i in range(count)
    ]
    assert classes_of(first, bits, key0, key1, count) == expected


def hashed_to(word: int) -> int:
    """Return the number whose hash is `word`."""
    x = word ^ word >> 16
    x = x * pow(0x846CA68B, -1, 2**32) % 2**32
    x = x ^ x >> 15 ^ x >> 30
    x = x * pow(0x7FEB352D, -1, 2**32) % 2**32
    return x ^ x >> 16


@given(WIDTHS, st.integers(0, 23), st.booleans(), st.booleans(), st.integers(0, 69), WORDS)
@example(1, 0, True, True, 69, 0)
def test_every_class_comes_from_both_ends_of_its_numbers(
    bits: int, length: int, upper: bool, turned: bool, at: int, key0: int
) -> None:
    """Of t with so many binary digits, the least and the greatest, on either side of 1/2."""
    t = (2**length - 1 if upper else 2**length // 2) << 7
    u = (t if turned else 2**32 - 1 - t) >> (bits + 1) << (bits + 1)
    counter = (at * 0x9E3779B9 + key0) % 2**32
    key1 = hashed_to(u >> (bits + 1)) ^ counter
    expected = oracle_classes.dither_class(at, bits, key0, key1)
    assert expected[1] == turned
    assert classes_of(0, bits, key0, key1, 70)[at] == shown(expected)


def test_all_classes_of_an_update_come_up() -> None:
    """Each octave of t has two, as long as each other; the last has what is below all octaves."""
    count = 2**20
    found = np.empty(count, np.uint8)
    kernels.dither_classes(0, 4, 1, 2, found)
    counts = np.bincount(found % TURNED, minlength=19)
    assert counts.size == 19
    shares = [2.0 ** -(c // 2 + 2) for c in range(18)]
    shares.append(1 - sum(shares))
    np.testing.assert_allclose(counts / count, shares, atol=4e-3, rtol=0.2)


# ---- The past -------------------------------------------------------------------


def test_classes_of_a_difference_are_those_of_the_page() -> None:
    """Whatever stands in the upper four bits of a byte."""
    past = np.arange(256, dtype=np.uint8)
    found = np.full(256, 0xA5, np.uint8)
    kernels.past_classes(past, found)
    assert found.tolist() == [shown(oracle_classes.past_class(p % 16)) for p in range(256)]


def random_past(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    return rng.integers(0, 16, count).astype(np.uint8)


@given(
    WIDTHS,
    st.integers(0, 15),
    st.integers(0, 2**16 - 1),
    st.one_of(st.integers(0, 60), st.integers(-9, 9).map(lambda n: 2 * DECODE_BLOCK + n)),
    SEEDS,
)
@example(16, 0, 0, 20, 1)
@example(1, 0, 2**16 - 1, 20, 1)
def test_the_past_moves_on_as_the_page_says(
    bits: int, wider: int, zero: int, count: int, seed: int
) -> None:
    width, zero = min(bits + wider, 16), zero % 2**bits
    rng = np.random.default_rng(seed)
    near = zero + rng.integers(-2, 3, count)
    codes = np.where(rng.random(count) < 0.7, near, rng.integers(0, 2**bits, count))
    codes = np.clip(codes, 0, 2**bits - 1)
    past = random_past(rng, count)
    expected = [
        oracle_classes.moved_on(p, c - zero)
        for p, c in zip(past.tolist(), codes.tolist(), strict=True)
    ]
    data = np.frombuffer(packed(codes, width), np.uint8)
    kernels.remember(past, data, bits, zero, width=width)
    assert past.tolist() == expected


@given(st.integers(0, 9000), SEEDS)
def test_without_codes_all_are_zero(count: int, seed: int) -> None:
    past = random_past(np.random.default_rng(seed), count)
    expected = [oracle_classes.moved_on(p, 0) for p in past.tolist()]
    kernels.remember(past, np.empty(0, np.uint8), 0, 0)
    assert past.tolist() == expected


# ---- What is refused ------------------------------------------------------------


@pytest.mark.parametrize("bits", [-1, 0, 17, 2**40])
def test_a_width_that_cannot_be_has_no_classes(bits: int) -> None:
    found = np.full(9, 0xA5, np.uint8)
    with pytest.raises(ValueError, match="out of range"):
        kernels.dither_classes(0, bits, 1, 2, found)
    assert (found == 0xA5).all()


@pytest.mark.parametrize(
    ("bits", "width", "zero", "size"),
    [
        (17, 17, 0, 99),
        (3, 2, 0, 99),
        (-1, 8, 0, 99),
        (4, 4, -1, 99),
        (4, 4, 2**16, 99),
        (8, 8, 0, 8),
    ],
)
def test_codes_that_cannot_be_leave_the_past_as_it_was(
    bits: int, width: int, zero: int, size: int
) -> None:
    past = np.full(9, 3, np.uint8)
    with pytest.raises(ValueError, match="out of range"):
        kernels.remember(past, np.zeros(size, np.uint8), bits, zero, width=width)
    assert (past == 3).all()


def test_as_many_pasts_as_classes_are_taken() -> None:
    with pytest.raises(ValueError, match="as many"):
        kernels.past_classes(np.zeros(3, np.uint8), np.zeros(4, np.uint8))
