"""The closed form of the best resolution, and the bits that reach it."""

from itertools import pairwise
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.codec.quantizer import Spread
from fedaq_server.schemes.optimizer import (
    bits_at_price,
    bits_for_resolution,
    resolution,
    resolution_bits,
)
from fedaq_server.schemes.spreads import arrays, stacked
from server.optimizer_items import MAX_BITS, Tensor, items_of, spreads

# ---- Closed form -------------------------------------------------------------


@given(st.floats(1e-6, 1e6), st.floats(1e-9, 1e-5), st.floats(1e-6, 1.0))
def test_twice_the_joules_per_bit_cost_half_a_bit(
    price: float, j_per_bit: float, coefficient: float
) -> None:
    def real_bits(j_per_bit: float, coefficient: float) -> float:
        return -log2(resolution(price, j_per_bit, coefficient))

    cheap = real_bits(j_per_bit, coefficient)
    assert cheap - real_bits(2 * j_per_bit, coefficient) == pytest.approx(0.5, abs=1e-9)
    # A client with half the weight has a quarter of the coefficient: one bit less.
    assert cheap - real_bits(j_per_bit, coefficient / 4) == pytest.approx(1.0, abs=1e-9)


@given(st.floats(1e-3, 1e3), st.floats(1e-9, 1e-5), st.floats(1e-4, 1.0), st.floats(6, 12))
def test_the_closed_form_minimises_noise_plus_price_of_energy(
    width: float, j_per_bit: float, coefficient: float, bits: float
) -> None:
    # The price at which `bits` solves the problem, by the derivative of the noise
    # c R^2 4^-b with c = a / 4; the closed form must find these bits again.
    step = width / 2**bits

    def lagrangian(price: float, b: float) -> float:
        return float(coefficient / 4 * width**2 * 4.0**-b + price * j_per_bit * b)

    price = 2 * np.log(2) * coefficient / 4 * step**2 / j_per_bit
    found = log2(width / resolution(price, j_per_bit, coefficient))
    assert found == pytest.approx(bits, abs=1e-9)
    for other in (found - 0.01, found + 0.01):
        assert lagrangian(price, other) > lagrangian(price, found)


@given(st.floats(1e-3, 1e3), st.floats(1e-9, 1e-5), st.floats(1e-4, 1.0), st.floats(4, 14))
def test_integer_bits_lie_within_one_bit_of_the_closed_form(
    width: float, j_per_bit: float, coefficient: float, bits: float
) -> None:
    price = 2 * np.log(2) * coefficient / 4 * (width / 2**bits) ** 2 / j_per_bit
    items = items_of([Tensor(width, 1000, coefficient, j_per_bit)])
    chosen = int(bits_at_price(items, price)[0])
    assert abs(chosen - bits) < 0.7
    assert resolution(price, j_per_bit, coefficient) == pytest.approx(width / 2**bits)


# ---- By resolution -----------------------------------------------------------


@given(st.floats(1e-3, 1e3), st.floats(1e-4, 1e2), st.booleans())
def test_resolution_takes_the_fewest_bits_that_reach_it(
    width: float, step: float, clip: bool
) -> None:
    spread = Spread(-width / 4, 3 * width / 4, 0.0, width / 20)
    bits = resolution_bits(arrays([spread]), step, clip=clip, min_bits=1, max_bits=MAX_BITS)[0]

    def reached(b: int) -> float:
        return float((spread.clipped(b).width if clip else width) / (2**b - 1))

    assert bits == MAX_BITS or reached(bits) <= step * (1 + 1e-9)
    assert bits == 1 or reached(bits - 1) > step * (1 - 1e-9)


@given(st.lists(spreads(), min_size=1, max_size=6), st.floats(1e-4, 1e3), st.data())
def test_clipped_the_bits_are_the_fewest_with_which_the_codec_reaches_the_resolution(
    several: list[Spread], step: float, data: st.DataObject
) -> None:
    least = data.draw(st.integers(1, MAX_BITS))
    most = data.draw(st.integers(least, MAX_BITS))
    bits = resolution_bits(
        stacked([several, several]), step, clip=True, min_bits=least, max_bits=most
    )
    expected = [
        next((b for b in range(least, most) if s.clipped(b).width / (2**b - 1) <= step), most)
        for s in several
    ]
    assert bits.tolist() == [expected, expected]


def test_resolution_bits_stay_within_their_limits() -> None:
    assert bits_for_resolution(0.0, 0.1, 2, 8) == 2
    assert bits_for_resolution(1e6, 0.1, 2, 8) == 8
    assert [bits_for_resolution(w, 1.0, 1, 16) for w in (1.0, 1.01, 3.0, 3.01)] == [1, 2, 2, 3]
    steps = [resolution(1.0, 1e-7, 1.0) * f for f in (1, 2, 4)]
    assert [b - a for a, b in pairwise(map(log2, steps))] == pytest.approx([1.0, 1.0])
