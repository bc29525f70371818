"""The compiled loops against the same arithmetic in NumPy, Python integers and bitarray.

Sizes reach over several blocks, which the tests of the quantizer do not. The random
numbers come from a second implementation of the generator; one test shows that the
compiled one gives the same, those of test_random_numbers.py look at their quality.
"""

import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.loop_oracles import (
    WIDTHS,
    accumulate,
    dequantize,
    expected_codes,
    packed,
    quantize,
    random_codes,
    uniform,
)
from fedaq.codec import kernels
from fedaq.codec.quantizer import Key

pytestmark = pytest.mark.usefixtures("level")
# Of native/common.h.
QUANTIZE_BLOCK, DECODE_BLOCK = 1024, 4096
SIZES = st.one_of(
    st.integers(1, 40),
    st.integers(-9, 9).map(lambda n: QUANTIZE_BLOCK + n),
    st.integers(-9, 9).map(lambda n: DECODE_BLOCK + n),
    st.integers(2 * QUANTIZE_BLOCK, 3 * DECODE_BLOCK),
)
SEEDS = st.integers(0, 2**32 - 1)
WORDS = st.integers(0, 2**32 - 1)


# ---- Range ------------------------------------------------------------------


@given(st.lists(WORDS, min_size=1, max_size=100), st.integers(1, 60))
@example([0x00000001, 0x80000001], 1)  # the least denormals
@example([0x7F7FFFFF, 0xFF7FFFFF], 1)  # the greatest floats
@example([0x7FC00000], 1)
@example([0xFFC00000, 0x3F800000], 7)
def test_the_range_is_that_of_any_bit_patterns(patterns: list[int], repeats: int) -> None:
    values = np.array(patterns * repeats, np.uint32).view(np.float32)
    found = kernels.statistics(values)
    ends = np.array([found.lo, found.hi])
    assert np.isfinite(ends).all() == np.isfinite(values).all()
    if np.isfinite(values).all():
        assert ends.tolist() == [values.min(), values.max()]


@given(st.integers(1, 200), SEEDS)
def test_sums_are_formed_in_sixteen_lanes(count: int, seed: int) -> None:
    values = uniform(seed, count, -1e3, 1e3)
    lanes = np.zeros((-count % 16 + count) // 16 * 16)
    lanes[:count] = values
    rows = lanes.reshape(-1, 16)
    found = kernels.statistics(values)
    results = (found.total, found.squares, found.magnitudes)
    for result, terms in zip(results, (rows, rows**2, abs(rows)), strict=True):
        sums = np.zeros(16)
        for row in terms:
            sums += row
        total = 0.0
        for lane in sums.tolist():
            total += lane
        assert result == total


# ---- Quantize and pack ------------------------------------------------------


@given(
    WIDTHS,
    SIZES,
    SEEDS,
    st.builds(Key, WORDS, WORDS),
    st.integers(0, 2**29).map(lambda n: 8 * n),
    st.booleans(),
)
def test_codes_are_the_dithered_or_nearest_positions_packed_as_bitarray_packs_them(
    bits: int, count: int, seed: int, key: Key, first: int, nearest: bool
) -> None:
    first = min(first, 2**32 - 8)
    values = uniform(seed, count, -0.3, 0.7)
    inverse_step = float(np.float32(2**bits - 1))
    expected = expected_codes(values, first, -0.3, inverse_step, bits, key, nearest)
    got = quantize(values, -0.3, inverse_step, bits, key, first, nearest)
    assert got == packed(expected, bits)


@given(
    bits=WIDTHS,
    exponent=st.integers(-126, 110),
    seed=SEEDS,
    centre=st.sampled_from([0.0, 1.0, -3.0]),
)
@example(bits=1, exponent=126, seed=0, centre=0.0)
@example(bits=16, exponent=-110, seed=0, centre=0.0)
@example(bits=8, exponent=-126, seed=0, centre=1.0)
def test_extreme_ranges_are_coded_as_ordinary_ones(
    bits: int, exponent: int, seed: int, centre: float
) -> None:
    width = 2.0**exponent
    values = uniform(seed, 300, centre * width, (centre + 1) * width)
    lo = float(values.min())
    step = float(np.float32((float(values.max()) - lo) / (2**bits - 1)))
    inverse_step = 1 / step if step >= np.finfo(np.float32).tiny else 0.0
    key = Key(seed, bits)
    expected = expected_codes(values, 0, lo, inverse_step, bits, key)
    assert quantize(values, lo, inverse_step, bits, key) == packed(expected, bits)


@given(WIDTHS, SIZES, st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(4, 9, 1e-45)
def test_a_constant_tensor_is_all_zeros(bits: int, count: int, value: float) -> None:
    values = np.full(count, value, np.float32)
    assert not any(quantize(values, value, 0.0, bits, Key(1, 2)))
    assert not any(quantize(values, value, 1.0, bits, Key(1, 2)))


@given(WIDTHS, st.integers(1, 100), st.floats(2.0**-9, 2.0**127, width=32), SEEDS)
def test_a_value_outside_the_range_takes_the_nearest_code_and_spares_its_neighbours(
    bits: int, count: int, excess: float, seed: int
) -> None:
    """A float32 rounding is enough to put the greatest value of a tensor there."""
    levels = 2**bits - 1
    codes = np.resize([0, levels, levels, 0, 0], 5 * count)
    values = np.resize(np.array([0, levels, levels + excess, 0, -excess], np.float32), 5 * count)
    assert quantize(values, 0.0, 1.0, bits, Key(seed, 0)) == packed(codes, bits)


# ---- Unpack -----------------------------------------------------------------


@given(
    bits=WIDTHS,
    count=SIZES,
    seed=SEEDS,
    lo=st.floats(-(2.0**100), 2.0**100, width=32),
    step=st.floats(0, 2.0**100, width=32),
)
@example(bits=16, count=5000, seed=1, lo=-1e-45, step=1e-45)
@example(bits=16, count=5000, seed=1, lo=2.0**126, step=0.0)
def test_decoded_values_are_the_exact_ones_rounded_once_or_twice(
    bits: int, count: int, seed: int, lo: float, step: float
) -> None:
    """The product is exact and the sum rounded to float64, then to float32."""
    codes = random_codes(seed, count, bits)
    expected = (np.float64(lo) + np.float64(step) * codes).astype(np.float32)
    got = dequantize(packed(codes, bits), bits, lo, step, count)
    np.testing.assert_array_equal(got, expected)


@st.composite
def fixed_points(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Draw a width and the constants of a tensor, as wide as 64-bit products allow."""
    bits = draw(WIDTHS)
    shift = draw(st.integers(0, 30))
    slope = draw(st.integers(0, 2**61 // (2**bits - 1)))
    return bits, draw(st.integers(-(2**61), 2**61)), slope, shift


@given(fixed_points(), SIZES, SEEDS)
def test_the_sum_is_that_of_python_integers_and_is_undone_exactly(
    constants: tuple[int, int, int, int], count: int, seed: int
) -> None:
    bits, origin, slope, shift = constants
    codes = random_codes(seed, count, bits)
    total = np.random.default_rng(seed).integers(-(2**60), 2**60, count)
    before = total.tolist()
    half = 2**shift // 2
    added = [origin + (slope * code + half) // 2**shift for code in codes.tolist()]
    # 64-bit sums may wrap around: that too is undone.
    wrapped = [(a + b + 2**63) % 2**64 - 2**63 for a, b in zip(before, added, strict=True)]

    accumulate(packed(codes, bits), bits, origin, slope, shift, 1, total)
    assert total.tolist() == wrapped
    accumulate(packed(codes, bits), bits, origin, slope, shift, -1, total)
    assert total.tolist() == before


@given(WIDTHS, SIZES, SEEDS)
def test_codes_and_their_squares_are_summed_exactly(bits: int, count: int, seed: int) -> None:
    """Whatever stands in the unused bits of the last byte."""
    codes = random_codes(seed, count, bits)
    data = np.frombuffer(packed(codes, bits), np.uint8).copy()
    unused = -count * bits % 8
    data[-1] |= 0xFF << (8 - unused) & 0xFF
    expected = sum(codes.tolist()), sum(code * code for code in codes.tolist())
    assert kernels.code_sums(data, bits, count) == expected


@given(
    st.lists(st.floats(-(2.0**16), 2.0**16, width=32), min_size=1, max_size=40),
    st.integers(-20, 36),
    st.integers(1, 1000),
)
def test_raw_values_are_added_rounded_to_even(
    values: list[float], exponent: int, examples: int
) -> None:
    factor = examples * 2.0**exponent
    total = np.zeros(len(values), np.int64)
    kernels.accumulate_raw(np.array(values, np.float32), factor, 1, total)
    assert total.tolist() == [round(value * factor) for value in values]
    kernels.accumulate_raw(np.array(values, np.float32), factor, -1, total)
    assert not total.any()


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(-(2**61), 2**61)), min_size=1)
)
def test_a_scaled_sum_is_added_in_float32(pairs: list[tuple[float, int]]) -> None:
    base = np.array([value for value, _ in pairs], np.float32)
    total = np.array([integer for _, integer in pairs], np.int64)
    out = np.empty_like(base)
    kernels.add_scaled(base, total, 2.0**-40 / 3, out)
    np.testing.assert_array_equal(out, base + (total * (2.0**-40 / 3)).astype(np.float32))


# ---- Codes that lie further apart than they are wide -------------------------


@given(WIDTHS, st.data(), SIZES, SEEDS, st.booleans())
def test_codes_that_lie_apart_are_those_that_lie_side_by_side(
    bits: int, data: st.DataObject, count: int, seed: int, nearest: bool
) -> None:
    width = data.draw(st.integers(bits, 16))
    values, key = uniform(seed, count, -0.3, 0.7), Key(seed, 1)
    inverse_step = float(np.float32(2**bits - 1))
    codes = expected_codes(values, 0, -0.3, inverse_step, bits, key, nearest)
    apart = np.full((count * width + 7) // 8, 0xA5, np.uint8)
    kernels.quantize_pack(
        values, 0, -0.3, inverse_step, bits, nearest, key.word0, key.word1, apart, width=width
    )
    assert apart.tobytes() == packed(codes, width)

    side_by_side = np.empty((count * bits + 7) // 8, np.uint8)
    kernels.repack(apart, width, bits, count, side_by_side)
    assert side_by_side.tobytes() == packed(codes, bits)

    whole = dequantize(packed(codes, bits), bits, -1.0, 0.25, count)
    # What a peer put above the bits of a code is ignored.
    dirty = codes | np.random.default_rng(seed).integers(0, 2 ** (width - bits), count) << bits
    wide = np.frombuffer(packed(dirty, width), np.uint8)
    decoded = np.ones(count, np.float32)
    kernels.unpack_dequantize(wide, bits, -1.0, 0.25, decoded, width=width)
    np.testing.assert_array_equal(decoded, whole)
    kernels.unpack_dequantize(wide, bits, -1.0, 0.25, decoded, width=width, add=True)
    np.testing.assert_array_equal(decoded, whole + whole)
    total = np.zeros(count, np.int64)
    kernels.unpack_accumulate(wide, bits, -7, 3, 1, -1, total, width=width)
    assert total.tolist() == [7 - (3 * code + 1) // 2 for code in codes.tolist()]
    expected = sum(codes.tolist()), sum(code * code for code in codes.tolist())
    assert kernels.code_sums(wide, bits, count, width=width) == expected


@given(st.integers(9, 16), SIZES, SEEDS)
def test_wide_codes_are_split_and_joined(bits: int, count: int, seed: int) -> None:
    codes = random_codes(seed, count, bits)
    high = np.empty(count, np.uint8)
    low = np.full((count * (bits - 8) + 7) // 8, 0xA5, np.uint8)
    kernels.split_wide(codes.astype(np.uint16), bits, high, low)
    assert high.tolist() == (codes >> (bits - 8)).tolist()
    assert low.tobytes() == packed(codes & (2 ** (bits - 8) - 1), bits - 8)
    joined = np.empty(count, np.uint16)
    kernels.join_wide(high, low, bits, joined)
    assert joined.tolist() == codes.tolist()


@given(st.binary(max_size=5000), st.integers(0, 255), st.floats(0, 1), SEEDS)
def test_bytes_are_split_at_their_mode_and_merged(
    rest: bytes, mode: int, share: float, seed: int
) -> None:
    symbols = np.frombuffer(rest, np.uint8).copy()
    symbols[np.random.default_rng(seed).random(symbols.size) < share] = mode
    flags = np.empty(symbols.size // 8 + 1, np.uint8)
    others = np.empty(symbols.size + 1, np.uint8)
    count = kernels.split_mode(symbols, mode, flags, others)
    assert others[:count].tolist() == symbols[symbols != mode].tolist()
    assert kernels.count_flags(flags, symbols.size) == count
    out = np.empty_like(symbols)
    kernels.merge_mode(flags, mode, others[: count + 1], out)
    assert out.tobytes() == symbols.tobytes()
    assert kernels.histogram(symbols).tolist() == np.bincount(symbols, minlength=256).tolist()
    strided = np.bincount(symbols[::3], minlength=256)
    assert kernels.histogram(symbols, 3).tolist() == strided.tolist()
    if count:
        with pytest.raises(ValueError, match="shorter"):
            kernels.merge_mode(flags, mode, others[:count], out)


# ---- Slices, threads, processors --------------------------------------------


def slices(count: int, cuts: list[int]) -> Iterator[slice]:
    ends = sorted({0, count, *(8 * cut for cut in cuts if 8 * cut < count)})
    yield from (slice(a, b) for a, b in pairwise(ends))


Run = Callable[[Callable[[slice], None], Iterator[slice]], Any]


def one_after_another(work: Callable[[slice], None], parts: Iterator[slice]) -> None:
    for part in parts:
        work(part)


def four_at_a_time(work: Callable[[slice], None], parts: Iterator[slice]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, parts))


@pytest.mark.parametrize("run", [one_after_another, four_at_a_time])
@settings(max_examples=40)
@given(
    bits=WIDTHS,
    count=st.integers(1, 3 * DECODE_BLOCK),
    cuts=st.lists(st.integers(0, 3 * DECODE_BLOCK // 8), max_size=30),
    seed=SEEDS,
)
def test_pieces_give_what_the_whole_gives_in_any_order_by_any_thread(
    run: Run, bits: int, count: int, cuts: list[int], seed: int
) -> None:
    key = Key(seed, 5)
    values = uniform(seed, count, 0, 1)
    inverse_step, step = float(2**bits - 1), 1 / (2**bits - 1)
    data = np.zeros((count * bits + 7) // 8, np.uint8)
    decoded = np.zeros(count, np.float32)
    total = np.zeros(count, np.int64)
    constants = (-(10**9), 2**50 // 2**bits, 20, 1)

    def work(part: slice) -> None:
        place = slice(part.start * bits // 8, (part.stop * bits + 7) // 8)
        coded = quantize(values[part], 0.0, inverse_step, bits, key, part.start)
        data[place] = np.frombuffer(coded, np.uint8)
        decoded[part] = dequantize(coded, bits, 0.0, step, part.stop - part.start)
        accumulate(coded, bits, *constants, total[part])

    run(work, slices(count, cuts))

    whole = quantize(values, 0.0, inverse_step, bits, key)
    assert data.tobytes() == whole
    np.testing.assert_array_equal(decoded, dequantize(whole, bits, 0.0, step, count))
    expected = np.zeros(count, np.int64)
    accumulate(whole, bits, *constants, expected)
    np.testing.assert_array_equal(total, expected)


def digest_of_everything() -> str:
    """Return a digest of what every kernel makes of the same 20,000 values at every width."""
    values = uniform(1, 20_000, -0.01, 0.02)
    statistics = kernels.statistics(values)
    lo, hi = statistics.lo, statistics.hi
    digest = blake2b(repr(statistics).encode())
    for bits in range(1, 17):
        step = float(np.float32((hi - lo) / (2**bits - 1)))
        data = quantize(values, lo, 1 / step, bits, Key(bits, 1))
        decoded = dequantize(data, bits, lo, step, values.size)
        total = np.zeros(values.size, np.int64)
        accumulate(data, bits, -12345, 2**55 // 2**bits // 3, 17, 1, total)
        kernels.accumulate_raw(decoded, 2.0**30 * 7, 1, total)
        kernels.add_scaled(values, total, 2.0**-37 / 7, decoded)
        digest.update(data + total.tobytes() + decoded.tobytes())
    return digest.hexdigest()


# What the first version of these loops gave; no later one may give anything else.
DIGEST = (
    "484e06beb8856f2d681605bf31df6ab224c701ea8cb50b1aa63bd2ab8a5d45d2"
    "817851e2a24f855524694b3c9fb464cafef613976b69319e9eb40ff963eec708"
)


def test_all_loops_give_the_bytes_on_file() -> None:
    assert digest_of_everything() == DIGEST


def test_the_slowest_level_runs_on_every_processor() -> None:
    assert kernels.levels()[-1] == "base"
    assert set(kernels.levels()) <= {"avx512", "avx2", "sse4", "base"}


CPUINFO = Path("/proc/cpuinfo")
NEEDED = {
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "popcnt"},
    "avx2": {"avx2", "popcnt"},
    "sse4": {"sse4_1", "ssse3", "popcnt"},
    "base": set[str](),
}


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not CPUINFO.exists(), reason="Linux on x86-64 tells it"
)
def test_the_levels_are_those_that_the_processor_has() -> None:
    """Whichever compiler made the library: what asks the processor is easily lost in a build."""
    [flags, *_] = (line for line in CPUINFO.read_text().splitlines() if line.startswith("flags"))
    has = set(flags.split())
    assert kernels.levels() == tuple(level for level, needs in NEEDED.items() if needs <= has)
