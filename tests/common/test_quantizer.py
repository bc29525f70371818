"""The quantizer against independent packing and exact arithmetic."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.codec import quantizer
from fedaq.codec.quantizer import Floats, Key, Range, derive_key, range_grid
from fedaq.errors import NotFiniteError
from wire import oracle

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**126),
                   max_value=2.0**126)  # fmt: skip
RANGES = st.tuples(FLOATS, FLOATS).map(lambda ends: Range(min(ends), max(ends)))
PATHS = st.lists(st.one_of(st.text(max_size=5), st.integers(0, 300)), max_size=4).map(tuple)


def encode(values: Floats, bounds: Range, bits: int, key: Key) -> bytes:
    out = np.empty(quantizer.packed_bytes(values.size, bits), np.uint8)
    quantizer.quantize(values, range_grid(bounds, bits), key, first=0, out=out)
    return out.tobytes()


def decode(data: bytes, bounds: Range, bits: int, count: int) -> Floats:
    out = np.empty(count, np.float32)
    quantizer.dequantize(np.frombuffer(data, np.uint8), range_grid(bounds, bits), out)
    return out


@st.composite
def code_lists(draw: st.DrawFn) -> tuple[int, list[int]]:
    bits = draw(st.integers(1, 16))
    return bits, draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=60))


@given(code_lists())
def test_values_on_the_grid_are_packed_as_bitarray_packs_their_codes(
    case: tuple[int, list[int]],
) -> None:
    bits, codes = case
    bounds = Range(0.0, float(2**bits - 1))  # the step is 1: a value is its own code
    data = encode(np.array(codes, np.float32), bounds, bits, Key(1, 2))
    assert data == oracle.pack(codes, bits)


@given(code_lists(), RANGES)
def test_decoded_values_are_the_documented_ones_bit_for_bit(
    case: tuple[int, list[int]], bounds: Range
) -> None:
    bits, codes = case
    got = decode(oracle.pack(codes, bits), bounds, bits, len(codes))
    expected = [oracle.value(code, bounds.lo, bounds.hi, bits) for code in codes]
    assert [oracle.pattern(v) for v in got] == [oracle.pattern(v) for v in expected]


@pytest.mark.parametrize("bits", range(1, 17))
def test_no_code_of_the_widest_accepted_range_decodes_to_infinity(bits: int) -> None:
    top = quantizer.LARGEST_MAGNITUDE
    last = oracle.pack([2**bits - 1], bits)
    for bounds in (Range(-top, top), Range(0.0, top)):
        quantizer.checked_range(bounds.lo, bounds.hi)
        assert np.isfinite(decode(last, bounds, bits, 1)).all()


@given(
    bits=st.integers(1, 16),
    bounds=RANGES,
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
)
def test_a_value_comes_back_within_one_quantization_step(
    bits: int, bounds: Range, seed: int, count: int
) -> None:
    part = np.random.default_rng(seed).uniform(0, 1, count)
    values = (bounds.lo * (1 - part) + bounds.hi * part).astype(np.float32)
    values = np.clip(values, np.float32(bounds.lo), np.float32(bounds.hi))
    got = decode(encode(values, bounds, bits, Key(seed, 0)), bounds, bits, count)
    step = quantizer.quantization_step(bounds, bits)
    if step < quantizer.SMALLEST_STEP:
        assert (got == np.float32(bounds.lo)).all()
        return
    # One step; three float32 roundings of the position, which is at most s steps; and
    # the rounding of the result.
    largest = max(abs(bounds.lo), abs(bounds.hi))
    allowed = step * (1 + 2**bits * 2.0**-22) + largest * 2.0**-23 + 2.0**-149
    assert np.abs(got.astype(np.float64) - values).max() <= allowed


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 16])
def test_rounding_is_unbiased_and_its_variance_within_the_bound(bits: int) -> None:
    count = 1 << 18
    bounds = Range(-0.3, 1.0)
    step = quantizer.quantization_step(bounds, bits)
    for number, place in enumerate((0.1, 0.5, 0.9)):
        code = (2**bits - 1) // 2
        true = np.float32(bounds.lo + step * (code + place))
        got = decode(
            encode(np.full(count, true), bounds, bits, Key(7, number)), bounds, bits, count
        )
        error = (got.astype(np.float64) - float(true)) / step
        # 5 standard errors of the mean of a coin that lands on `place`, and what float32
        # arithmetic adds to a position of at most s steps.
        assert abs(error.mean()) < 5 * np.sqrt(place * (1 - place) / count) + 2**bits * 2.0**-22
        bound = quantizer.error_variance_bound(bounds.width, bits) / step**2
        assert np.mean(error**2) <= bound * (1 + 1e-3)
        assert np.mean(error**2) == pytest.approx(place * (1 - place), rel=0.05)


@pytest.mark.parametrize("bits", [1, 3, 8, 16])
def test_values_outside_the_range_get_the_nearest_code(bits: int) -> None:
    top = 2**bits - 1
    values = np.array([-1e30, -0.26, -0.25, 0.5, 0.51, 7, 1e30, 2.0**126], np.float32)
    data = encode(values, Range(-0.25, 0.5), bits, Key(5, 6))
    assert oracle.unpack(data, bits, len(values)) == [0, 0, 0, top, top, top, top, top]


def rounded_up(key: Key, count: int) -> Floats:
    codes = oracle.unpack(
        encode(np.full(count, 0.5, np.float32), Range(0.0, 1.0), 1, key), 1, count
    )
    return np.array(codes, np.float32)


def test_random_streams_of_different_transfers_are_uncorrelated() -> None:
    count = 1 << 15
    paths = [
        ("uplink", "client-1", 1, 0),
        ("downlink", 1, 0),
        ("uplink", "client-2", 1, 0),
        ("uplink", "client-1", 2, 0),
        ("uplink", "client-1", 1, 1),
    ]
    keys = [derive_key(2, *paths[0]), *(derive_key(1, *path) for path in paths)]
    # A key that shares one word with another.
    keys += [Key(keys[0].word0, keys[1].word1), Key(keys[2].word0, keys[0].word1)]
    streams = np.array([rounded_up(key, count) for key in keys])
    assert np.abs(streams.mean(axis=1) - 0.5).max() < 5 * 0.5 / np.sqrt(count)
    correlation = np.corrcoef(streams) - np.eye(len(keys))
    assert np.abs(correlation).max() < 5 / np.sqrt(count)
    # Nor is one a shifted copy of another, or of itself.
    for one in streams:
        for other in streams:
            for shift in (1, 2, 8):
                assert abs(np.corrcoef(one[shift:], other[:-shift])[0, 1]) < 5.5 / np.sqrt(count)


@given(st.integers(0, 2**63), PATHS, st.integers(0, 2**63), PATHS)
def test_keys_of_different_paths_differ(
    seed: int, path: tuple[str | int, ...], other_seed: int, other: tuple[str | int, ...]
) -> None:
    same = (seed, *path) == (other_seed, *other)
    assert (derive_key(seed, *path) == derive_key(other_seed, *other)) == same


def test_paths_that_read_alike_have_keys_of_their_own() -> None:
    alike: list[tuple[str | int, ...]] = [(12, 3), (1, 23), ("12", 3), ("1", "23"), ("12,3",)]
    assert len({derive_key(1, *path) for path in alike}) == len(alike)


@given(PATHS, st.integers(0, 2**63))
def test_derived_seeds_fit_what_libraries_take(path: tuple[str | int, ...], seed: int) -> None:
    assert 0 <= quantizer.derive_seed(seed, *path) < 2**63


@given(st.integers(1, 16), st.integers(1, 200), st.lists(st.integers(0, 24), max_size=4))
def test_a_tensor_coded_in_slices_has_the_bytes_of_one_coded_whole(
    bits: int, count: int, cuts: list[int]
) -> None:
    values = np.random.default_rng(count).uniform(-1, 1, count).astype(np.float32)
    bounds, key = Range(-1.0, 1.0), Key(3, 4)
    grid = range_grid(bounds, bits)
    ends = sorted({0, count, *(8 * cut for cut in cuts if 8 * cut < count)})
    data = b""
    for first, last in pairwise(ends):
        out = np.empty(quantizer.packed_bytes(last - first, bits), np.uint8)
        quantizer.quantize(values[first:last], grid, key, first=first, out=out)
        data += out.tobytes()
    assert data == encode(values, bounds, bits, key)


@given(st.integers(0, 2**40), st.integers(1, 32))
def test_packed_bytes_is_the_ceiling_of_the_bits(count: int, bits: int) -> None:
    size = quantizer.packed_bytes(count, bits)
    assert size - 1 < Fraction(count * bits, 8) <= size


def test_widths_are_1_to_16_and_32() -> None:
    assert [b for b in range(-1, 100) if quantizer.is_width(b)] == [*range(1, 17), 32]


@given(st.lists(FLOATS, min_size=1, max_size=50))
def test_the_range_is_that_of_the_values(values: list[float]) -> None:
    assert quantizer.value_range(np.array(values, np.float32)) == Range(min(values), max(values))


def test_an_empty_tensor_has_the_empty_range() -> None:
    assert quantizer.value_range(np.empty(0, np.float32)) == Range(0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**127, -(2.0**127)])
@pytest.mark.parametrize("place", [0, 5, 9])
def test_a_tensor_with_an_impossible_value_has_no_range(bad: float, place: int) -> None:
    values = np.zeros(10, np.float32)
    values[place] = bad
    with pytest.raises(NotFiniteError):
        quantizer.value_range(values)


@pytest.mark.parametrize(
    ("lo", "hi", "said"),
    [
        (float("nan"), 1.0, "not finite"),
        (0.0, float("nan"), "not finite"),
        (float("-inf"), 0.0, "not finite"),
        (1.0, 0.5, "reversed"),
        (0.0, 1.5 * 2.0**126, "beyond"),
        (-1.5 * 2.0**126, 0.0, "beyond"),
    ],
)
def test_impossible_ranges_are_refused(lo: float, hi: float, said: str) -> None:
    with pytest.raises(NotFiniteError, match=said):
        quantizer.checked_range(lo, hi)
