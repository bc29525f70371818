"""Words come back from their packing, and masks cancel in words of every width."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaq.codec.quantizer import packed_bytes
from fedaq.privacy.layout import BLOCK, FIGURE_BITS, WIDEST_CODES, Segment, layout_of
from fedaq.privacy.masks import Mask, Masks

WIDTHS = st.one_of(st.integers(1, WIDEST_CODES), st.just(FIGURE_BITS))
SIZES = st.one_of(st.integers(1, 70), st.integers(BLOCK - 9, BLOCK + 9))


def _drawn(segment: Segment, seed: int) -> np.ndarray:
    top = 2**segment.width - 1
    drawn = np.random.default_rng(seed).integers(0, top, segment.values, np.uint64, endpoint=True)
    return drawn.astype(segment.dtype)


def _packed(segment: Segment, words: np.ndarray) -> bytes:
    return b"".join(segment.pack(words[block]) for block in segment.blocks())


@settings(max_examples=80, deadline=None)
@given(width=WIDTHS, values=SIZES, seed=st.integers(0, 2**32))
def test_words_come_back(width: int, values: int, seed: int) -> None:
    segment = Segment(values, width)
    words = _drawn(segment, seed)
    packed = _packed(segment, words)
    assert len(packed) == segment.packed_bytes == packed_bytes(values, width)
    at = 0
    for block in segment.blocks():
        end = at + segment.block_bytes(block)
        found = segment.unpack(packed[at:end], block.stop - block.start)
        assert np.array_equal(found, words[block])
        at = end


@pytest.mark.parametrize("width", [3, 8, 11, 16, 21, 32, FIGURE_BITS])
def test_what_lies_above_the_width_is_left_out(width: int) -> None:
    segment = Segment(40, width)
    words = _drawn(Segment(40, 8 * segment.dtype.itemsize), 5)
    kept = segment.unpack(segment.pack(words), 40)
    top = np.uint64(2**width - 1)
    assert np.array_equal(kept.astype(np.uint64), words.astype(np.uint64) & top)


@settings(max_examples=40, deadline=None)
@given(width=WIDTHS, values=SIZES, seeds=st.lists(st.binary(min_size=32, max_size=32), max_size=4))
def test_a_mask_and_its_opposite_cancel(width: int, values: int, seeds: list[bytes]) -> None:
    segment = Segment(values, width)
    words, added, taken = (_drawn(segment, 1) for _ in range(3))
    there = Masks([Mask(seed, 1) for seed in seeds])
    back = Masks([Mask(seed, -1) for seed in reversed(seeds)])
    for block in segment.blocks():
        there.apply(added[block])
        taken[block] = added[block]
        back.apply(taken[block])
    assert np.array_equal(taken, words)
    if seeds and len(set(seeds)) == len(seeds) and values * width > 100:
        assert not np.array_equal(added, words)


def test_a_wide_sum_takes_the_masks_of_narrow_words() -> None:
    segment = Segment(3 * BLOCK // 2, 16)
    narrow = np.zeros(segment.values, segment.dtype)
    wide = np.zeros(segment.values, np.int64)
    seeds = [bytes([i]) * 32 for i in range(3)]
    client, server = (Masks([Mask(seed, 1) for seed in seeds]) for _ in range(2))
    for block in segment.blocks():
        client.apply(narrow[block])
        server.apply(wide[block], segment.dtype)
    assert np.array_equal(wide & 0xFFFF, narrow)


def test_masked_words_are_uniform() -> None:
    """Chi-squared over all bytes of a constant that is masked: within six deviations."""
    segment = Segment(2**18, 8)
    words = np.full(segment.values, 77, segment.dtype)
    masks = Masks([Mask(b"a seed of thirty-two bytes here!", 1)])
    for block in segment.blocks():
        masks.apply(words[block])
    counts = np.bincount(words, minlength=256)
    expected = segment.values / 256
    squares = float(((counts - expected) ** 2 / expected).sum())
    assert abs(squares - 255) < 6 * (2 * 255) ** 0.5


def test_tensors_that_are_not_sent_have_no_segment() -> None:
    layout = layout_of((10, 20, 30), (9, 0, 17))
    assert [segment.values for segment in layout.segments] == [10, 30, 4]
    assert layout.packed_bytes == 12 + 64 + 32
