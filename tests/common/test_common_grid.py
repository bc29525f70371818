"""One grid for all updates: its steps, its weights, and sums that are exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaq.codec.common_grid import (
    FIGURE_UNIT,
    LEAST_STEP,
    MOST_WEIGHT,
    WEIGHT_ERROR,
    figures_of,
    grid_code,
    mean_figures,
    reach_of,
    reached_code,
    small_weights,
)
from fedaq.codec.payload import ZERO
from fedaq.codec.quantizer import MAX_BITS, Spread

COUNTS = st.dictionaries(st.text(min_size=1), st.integers(1, 2**40), min_size=1, max_size=20)


@given(step=st.floats(1e-9, 1e6), reach=st.floats(0, 2.0**15), most_bits=st.integers(2, MAX_BITS))
def test_steps_are_powers_of_two_and_both_ends_know_the_code(
    step: float, reach: float, most_bits: int
) -> None:
    code = grid_code(step, reach, most_bits)
    assert np.frexp(code.step)[0] == 0.5
    assert code.step >= LEAST_STEP
    assert 1 <= code.bits <= most_bits
    assert reach_of(code) >= reach
    # What travels is a binary32 step and reach.
    again = reached_code(float(np.float32(code.step)), float(np.float32(reach_of(code))))
    assert (again.bits, again.step, again.zero) == (code.bits, code.step, code.zero)
    assert code.grid is not None
    assert code.grid.hi >= reach


@given(step=st.floats(2.0**-15, 2.0**10))
def test_the_step_is_the_nearest_power_of_two(step: float) -> None:
    assert 2**-0.51 < grid_code(step, 0.0).step / step < 2**0.51


def test_a_tensor_that_is_not_sent_has_no_code() -> None:
    assert reached_code(0.0, 0.0) == ZERO


@given(counts=COUNTS)
def test_weights_are_small_and_nearly_in_proportion(counts: dict[str, int]) -> None:
    weights = small_weights(counts)
    assert weights.keys() == counts.keys()
    assert all(1 <= weight <= MOST_WEIGHT for weight in weights.values())
    largest, most = max(weights.values()), max(counts.values())
    for name, weight in weights.items():
        due = counts[name] * largest / most
        assert abs(weight - due) <= max(0.5 + 1e-9, 1 - due)
        if largest < MOST_WEIGHT:
            assert abs(weight / due - 1) <= WEIGHT_ERROR + 1e-9


@pytest.mark.parametrize(
    ("counts", "weights"),
    [((287, 288, 288), (1, 1, 1)), ((100, 200, 300), (1, 2, 3)), ((1, 10**6), (1, 15))],
)
def test_weights_are_no_larger_than_they_need_to_be(
    counts: tuple[int, ...], weights: tuple[int, ...]
) -> None:
    found = small_weights({str(at): count for at, count in enumerate(counts)})
    assert tuple(found.values()) == weights


@settings(max_examples=50)
@given(
    losses=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=9),
    deviation=st.floats(0, 100, width=32),
)
def test_means_of_figures_are_those_of_what_they_stand_for(
    losses: list[float], deviation: float
) -> None:
    spread = Spread(-1.0, 1.0, 0.0, deviation)
    sums = np.zeros(2, np.int64)
    for loss in losses:
        sums += np.array(figures_of((spread,), loss))
    figures = mean_figures(sums.tolist(), len(losses))
    assert figures.train_loss == pytest.approx(sum(losses) / len(losses), abs=FIGURE_UNIT)
    assert figures.widths[0] == pytest.approx(deviation, abs=FIGURE_UNIT)


def test_figures_have_bounds() -> None:
    wide = Spread(-1e30, 1e30, 0.0, 1e30)
    assert figures_of((wide,), -1e30) == (-(2**40), 2**40)
