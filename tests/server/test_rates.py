"""Expected lengths and errors against values that are drawn, coded and counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.codec.quantizer import Floats, Spread, tensor_spread
from fedaq_server.schemes.code_lengths import (
    HEADER_BITS,
    TABLE_BITS,
    ZERO_BITS,
    Codes,
    rates,
    root_mean_square,
    sample_codes,
    tensors,
)
from fedaq_server.schemes.spreads import arrays, stacked

MANY = 300_000
SCALE = 0.01


def drawn(kind: str) -> Floats:
    rng = np.random.default_rng(1)
    values = {
        "normal": lambda: rng.standard_normal(MANY),
        "laplace": lambda: rng.laplace(size=MANY),
        # Generalised normal with exponent 1/2: most is near zero, a few are far out.
        "peaky": lambda: rng.choice([-1.0, 1.0], MANY) * rng.gamma(2.0, size=MANY) ** 2,
        "scales": lambda: rng.standard_normal(MANY) * np.exp(rng.standard_normal(MANY)),
        "sparse": lambda: rng.standard_normal(MANY) * (rng.random(MANY) < 0.1),
    }[kind]()
    return (SCALE * values).astype(np.float32)


VALUES = {kind: drawn(kind) for kind in ("normal", "laplace", "peaky", "scales", "sparse")}


def coded(values: Floats, step: float, *, nearest: bool) -> tuple[float, float]:
    """Return bits a value, and mean square error over mean square."""
    exact = values.astype(np.float64)
    position = exact / step
    random = np.random.default_rng(2).random(values.size)
    codes = np.rint(position) if nearest else np.floor(position + random)
    _, counts = np.unique(codes, return_counts=True)
    shares = counts / values.size
    error = np.mean((codes * step - exact) ** 2) / np.mean(exact**2)
    return float(-shares @ np.log2(shares)), float(error)


def expected(values: Floats, step: float, *, nearest: bool) -> tuple[float, float]:
    sent = tensors(arrays([tensor_spread(values)]), [values.size], nearest=nearest)
    return float(sent.bits(step)[0]) / values.size, float(sent.errors(step)[0])


def rms_of(values: Floats) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


# Steps in root mean squares of the values.
@pytest.mark.parametrize("relative", [2.0**-5, 0.1, 0.3, 0.7, 1.0, 1.5, 2.2, 3.3, 10.0, 60.0])
@pytest.mark.parametrize("nearest", [False, True], ids=["random", "nearest"])
@pytest.mark.parametrize("kind", ["normal", "laplace", "peaky"])
def test_lengths_and_errors_are_those_of_what_was_drawn(
    kind: str, nearest: bool, relative: float
) -> None:
    values = VALUES[kind]
    step = relative * rms_of(values)
    bits, error = coded(values, step, nearest=nearest)
    expected_bits, expected_error = expected(values, step, nearest=nearest)
    # Where next to nothing is sent, a hundredth of a bit a value.
    assert expected_bits == pytest.approx(bits, rel=0.04, abs=0.012)
    # Between two steps of the table, errors, which grow as its square, are up to 6 % less.
    assert expected_error == pytest.approx(error, rel=0.07, abs=1e-6)


@pytest.mark.parametrize("nearest", [False, True], ids=["random", "nearest"])
def test_a_step_of_half_the_size_takes_a_bit_more_however_fine(nearest: bool) -> None:
    """Up to the longest codes: more than that is not sent."""
    values = VALUES["normal"].astype(np.float64)
    fine = [rms_of(VALUES["normal"]) * 2.0**-exponent for exponent in range(5, 40)]
    up = [float(expected(VALUES["normal"], step, nearest=nearest)[0]) for step in fine]
    assert np.diff(up) == pytest.approx(1.0, abs=0.05)
    found = [sample_codes([values], [MANY], step, nearest=nearest) for step in fine]
    down = np.array([float(codes.total(1.0)) / MANY for codes in found])
    assert np.all(np.diff(down) >= 0)
    assert down[-1] == pytest.approx(16, abs=0.01)


@pytest.mark.parametrize("relative", [2.0**-5, 0.3, 1.0, 3.3, 20.0])
def test_a_mixture_of_scales_is_coded_nearly_as_its_shape_lets_expect(relative: float) -> None:
    """As the columns of a layer are; no generalised normal distribution is quite like it."""
    values = VALUES["scales"]
    step = relative * rms_of(values)
    bits, error = coded(values, step, nearest=False)
    expected_bits, expected_error = expected(values, step, nearest=False)
    assert expected_bits == pytest.approx(bits, rel=0.05)
    assert expected_error == pytest.approx(error, rel=0.12)


@pytest.mark.parametrize("relative", [2.0**-5, 0.3, 1.0, 2.0, 3.3, 10.0, 60.0])
def test_zeros_among_the_values_are_expected_to_cost_rather_more_than_they_do(
    relative: float,
) -> None:
    """Updates with exact zeros have steps of about their root mean square, or above it."""
    values = VALUES["sparse"]
    step = relative * rms_of(values)
    bits, error = coded(values, step, nearest=False)
    expected_bits, expected_error = expected(values, step, nearest=False)
    assert expected_bits >= 0.95 * bits
    assert expected_error >= 0.95 * error
    if relative >= 2:
        assert expected_bits == pytest.approx(bits, rel=0.12)


@given(
    st.floats(0.05, 1.0), st.floats(-2.0, 2.0), st.booleans(),
    st.floats(-7.0, 10.0), st.floats(0.01, 3.0),
)  # fmt: skip
def test_coarser_steps_take_fewer_bits_and_err_more(
    ratio: float, mean: float, nearest: bool, finer: float, doublings: float
) -> None:
    """Whatever shape a client reports, also one that cannot be."""
    spread = Spread(-9.0, 9.0, mean, 1.0, ratio)
    sent = tensors(arrays([spread]), [1000], nearest=nearest)
    step = 2.0**finer * root_mean_square(spread)
    coarser = step * 2.0**doublings
    assert sent.bits(coarser)[0] <= sent.bits(step)[0] * (1 + 1e-9) + 1e-6
    assert sent.errors(coarser)[0] >= sent.errors(step)[0] * (1 - 1e-9) - 1e-9
    assert -1e-9 <= sent.bits(coarser)[0] < 16 * 1000
    assert 0 <= sent.errors(step)[0] < np.inf


def test_peakier_values_take_fewer_bits() -> None:
    table = rates(nearest=False)
    assert (np.diff(table.ratios) > 0).all()
    # The differential entropy of a normal distribution is the greatest for its deviation.
    normal = int(np.abs(table.ratios - np.sqrt(2 / np.pi)).argmin())
    assert (np.diff(table.bits[: normal + 1], axis=0) > -1e-9).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_values_does_not_matter(scale: float) -> None:
    one, other = (
        tensors(arrays([Spread(-4 * s, 4 * s, 0.0, s, 0.8 * s)]), [7], nearest=True)
        for s in (1.0, scale)
    )
    assert other.bits(0.3 * scale)[0] == pytest.approx(one.bits(0.3)[0])
    assert other.errors(0.3 * scale)[0] == pytest.approx(one.errors(0.3)[0])


def test_several_tensors_are_expected_as_each_alone() -> None:
    spreads = [tensor_spread(values) for values in VALUES.values()]
    elements = [10, 0, 1, 2**30, 500]
    together = tensors(arrays(spreads), elements, nearest=False)
    for i, (spread, size) in enumerate(zip(spreads, elements, strict=True)):
        alone = tensors(arrays([spread]), [size], nearest=False)
        for step in (1e-3, 0.02, 5.0):
            assert together.bits(step)[i] == alone.bits(step)[0]
            assert together.errors(step)[i] == alone.errors(step)[0]
    assert together.bits(0.01)[1] == 0


def test_a_tensor_of_zeros_costs_next_to_nothing() -> None:
    sent = tensors(arrays([Spread(0.0, 0.0, 0.0, 0.0, 0.0)]), [1000], nearest=False)
    for step in (1e-30, 1e-3, 1e30):
        assert sent.bits(step)[0] < 0.05 * 1000
        assert np.isfinite(sent.errors(step)).all()


def test_the_tensors_of_many_senders_are_expected_as_each_senders() -> None:
    kinds = list(VALUES.values())
    rows = [[tensor_spread(scale * values) for values in kinds] for scale in (1, 3, 10)]
    elements = [10, 0, 1, 2**30, 500]
    together = tensors(stacked(rows), elements, nearest=False)
    steps = np.array([[1e-3], [0.02], [5.0]])
    for i, (row, step) in enumerate(zip(rows, steps.ravel().tolist(), strict=True)):
        alone = tensors(arrays(row), elements, nearest=False)
        assert together.bits(steps)[i].tolist() == alone.bits(step).tolist()
        assert together.errors(steps)[i].tolist() == alone.errors(step).tolist()


@pytest.mark.parametrize("relative", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("nearest", [False, True], ids=["random", "nearest"])
def test_a_sample_tells_the_length_of_its_codes(nearest: bool, relative: float) -> None:
    """Also of a tensor far from zero, of an empty one, and where no two codes are the same."""
    samples = [VALUES["laplace"][::300], VALUES["normal"][::300] + 7 * SCALE, VALUES["peaky"][:0]]
    step = relative * SCALE
    found = sample_codes(
        [values.astype(np.float64) for values in samples], [2000, 3000, 0], step, nearest=nearest
    )
    bits = float(found.total())
    expected = float(ZERO_BITS if nearest else HEADER_BITS)
    for values, size in zip(samples[:2], (2000, 3000), strict=True):
        codes = values.astype(np.float64) / step
        random = np.random.default_rng(2).random((1 if nearest else 400, values.size))
        rounded = np.rint(codes) if nearest else np.floor(codes + random)
        _, counts = np.unique(rounded, return_counts=True)
        shares = counts / rounded.size
        expected += ZERO_BITS if nearest and not rounded.any() else HEADER_BITS
        expected += size * float(-shares @ np.log2(shares))
    assert bits == pytest.approx(expected, rel=0.01)


@given(st.floats(0.2, 10.0))
def test_how_much_longer_codes_were_is_found_again(longer: float) -> None:
    codes = Codes(np.full(3, 112.0), np.array([3e4, 500.0, 0.0]), np.array([1e6, 1e5, 0.0]))
    assert codes.longer(float(codes.total(longer))) == pytest.approx(longer, rel=2e-3)


def test_headers_and_tables_do_not_shrink_with_the_step() -> None:
    """And no tensor is longer than packed."""
    rng = np.random.default_rng(4)
    samples = [0.01 * rng.standard_normal(16) for _ in range(50)]
    fine, coarse, none = (
        sample_codes(samples, [16] * 50, step, nearest=True) for step in (0.002, 0.01, 1.0)
    )
    for codes in (fine, coarse):
        assert float(codes.total(1.5)) >= 50 * HEADER_BITS
        assert np.all(codes.entropy <= codes.packed + 1e-9)
    assert float(coarse.total(1.5) - coarse.total(1.0)) == pytest.approx(
        np.sum(np.minimum(TABLE_BITS / 2, coarse.packed - coarse.entropy))
    )
    assert float(fine.total(100.0)) == np.sum(fine.headers + fine.packed)
    # What is rounded to zero of all values is not sent.
    assert float(none.total(5.0)) == 50 * ZERO_BITS
    assert none.longer(1e5) is None
