"""The entropy coder: sizes, round trips, and blocks that are not what they say.

Broken blocks are made by changing good ones of every kind, and by hand where a frame has
to be whole and yet not right.
"""

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedaq.codec import entropy

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Symbols = NDArray[np.uint8]

SEEDS = st.integers(0, 2**32 - 1)
# Lengths around the sizes of a group of flags, of the smallest split, and of zstd's blocks.
LENGTHS = st.one_of(
    st.integers(0, 40),
    st.integers(-9, 9).map(lambda n: entropy.SMALLEST_SPLIT + n),
    st.integers(-9, 9).map(lambda n: 2**17 + n),
    st.integers(0, 5000),
)
SHARES = st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0])
ALPHABETS = st.sampled_from([1, 2, 5, 16, 256])


def skewed(length: int, share: float, alphabet: int, seed: int) -> Symbols:
    """Return bytes of which about `share` are one and the same."""
    rng = np.random.default_rng(seed)
    others = rng.integers(0, alphabet, length)
    return np.where(rng.random(length) < share, 128, others).astype(np.uint8)


def normal(length: int, deviation: float) -> Symbols:
    values = np.random.default_rng(1).normal(128, deviation, length)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def entropy_bytes(symbols: Symbols) -> float:
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / symbols.size
    return float(-shares @ np.log2(shares)) * symbols.size / 8


def frame(content: bytes, options: dict[int, int] | None = None) -> bytes:
    """Return an ordinary zstd frame as a coded block."""
    whole = zstd.compress(
        content,
        options={zstd.CompressionParameter.content_size_flag: 0} if options is None else options,
    )
    return bytes((entropy.ONCE,)) + whole[len(entropy.FRAME_START) :]


# One block of each kind, and a split in a split.
KINDS = {
    "raw": skewed(700, 0.0, 256, 1),
    "once": normal(3000, 3.0),
    "twice": normal(20_000, 0.9),
    "split": skewed(3000, 0.8, 16, 1),
    "splits": skewed(20_000, 0.99, 16, 1),
}


@given(LENGTHS, SHARES, ALPHABETS, SEEDS)
@settings(deadline=None)
def test_round_trip(length: int, share: float, alphabet: int, seed: int) -> None:
    symbols = skewed(length, share, alphabet, seed)
    expanded = entropy.expand(entropy.compress(symbols), length)
    assert expanded.dtype == np.uint8
    np.testing.assert_array_equal(expanded, symbols)


@given(st.binary(max_size=2000))
@settings(deadline=None)
def test_round_trip_of_any_bytes(content: bytes) -> None:
    symbols = np.frombuffer(content, np.uint8)
    assert entropy.expand(entropy.compress(symbols), symbols.size).tobytes() == content


def test_bytes_with_gaps_in_memory() -> None:
    symbols = normal(3000, 3.0)
    assert entropy.compress(symbols[::2]) == entropy.compress(symbols[::2].copy())


@pytest.mark.parametrize("kind", ["raw", "once", "twice", "split"])
def test_kinds(kind: str) -> None:
    assert entropy.compress(KINDS[kind])[0] == ["raw", "once", "twice", "split"].index(kind)


@pytest.mark.parametrize("deviation", [0.4, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 40])
def test_size_of_normal_bytes(deviation: float) -> None:
    symbols = normal(2**18, deviation)
    assert len(entropy.compress(symbols)) < 1.031 * entropy_bytes(symbols)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_size_of_skewed_bytes(share: float) -> None:
    symbols = skewed(2**19, share, 16, 1)
    assert len(entropy.compress(symbols)) < 1.031 * entropy_bytes(symbols)


def test_incompressible_bytes_grow_by_one() -> None:
    symbols = skewed(2**17, 0.0, 256, 1)
    assert len(entropy.compress(symbols)) == 2**17 + 1


def test_equal_bytes_are_nearly_nothing() -> None:
    assert len(entropy.compress(np.full(2**20, 7, np.uint8))) < 100


def test_no_search_for_matches() -> None:
    """Options that zstd no longer knew, or took otherwise, would show here."""
    half = normal(2**15, 3.0)
    twice_the_same = np.concatenate([half, half])
    size = len(entropy.compress(twice_the_same))
    assert 0.99 * entropy_bytes(twice_the_same) < size < 1.03 * entropy_bytes(twice_the_same)


def test_more_than_fits_in_a_block() -> None:
    with pytest.raises(ValueError, match="in a block"):
        entropy.compress(np.zeros(entropy.MAX_LENGTH + 1, np.uint8))


def test_threads_do_not_disturb_each_other() -> None:
    blocks = [skewed(2**16, share, 16, i) for i, share in enumerate([0.0, 0.5, 0.7, 0.9] * 8)]
    alone = [entropy.compress(block) for block in blocks]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(entropy.compress, blocks)) == alone
        expanded = list(pool.map(entropy.expand, alone, [block.size for block in blocks]))
    for symbols, block in zip(expanded, blocks, strict=True):
        np.testing.assert_array_equal(symbols, block)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(deadline=None)
def test_changed_block(kind: str, data: st.DataObject) -> None:
    """No checksum tells a changed block, but it has the right length or is refused."""
    symbols = KINDS[kind]
    coded = bytearray(entropy.compress(symbols))
    for _ in range(data.draw(st.integers(1, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] = data.draw(st.integers(0, 255))
    try:
        expanded = entropy.expand(bytes(coded), symbols.size)
    except ValueError:
        return
    assert expanded.shape == symbols.shape


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(deadline=None)
def test_truncated_block(kind: str, data: st.DataObject) -> None:
    symbols = KINDS[kind]
    coded = entropy.compress(symbols)
    with pytest.raises(ValueError, match="coded block"):
        entropy.expand(coded[: data.draw(st.integers(0, len(coded) - 1))], symbols.size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [-100, -1, 1, 100, 10**6])
def test_length_that_lies(kind: str, more: int) -> None:
    symbols = KINDS[kind]
    with pytest.raises(ValueError, match="coded block"):
        entropy.expand(entropy.compress(symbols), symbols.size + more)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [b"\0", b"\x28\xb5\x2f\xfd", bytes(1000)])
def test_more_after_the_block(kind: str, garbage: bytes) -> None:
    symbols = KINDS[kind]
    with pytest.raises(ValueError, match="coded block"):
        entropy.expand(entropy.compress(symbols) + garbage, symbols.size)


@given(st.binary(max_size=100), st.integers(0, 1000))
@settings(deadline=None)
def test_any_bytes_as_a_block(data: bytes, length: int) -> None:
    with suppress(ValueError):
        assert entropy.expand(data, length).size == length


@pytest.mark.parametrize("kind", [4, 255])
def test_unknown_kind(kind: int) -> None:
    with pytest.raises(ValueError, match="kind"):
        entropy.expand(bytes((kind,)) + bytes(10), 10)


def test_two_frames() -> None:
    one = frame(bytes(500))
    with pytest.raises(ValueError, match="coded block"):
        entropy.expand(one + zstd.compress(bytes(500)), 1000)


def test_large_window() -> None:
    """The memory of a window is the frame's to ask for, so not given."""
    options: dict[int, int] = {
        zstd.CompressionParameter.content_size_flag: 0,
        zstd.CompressionParameter.window_log: 27,
    }
    compressor = zstd.ZstdCompressor(options=options)
    # In two parts, so that the window is not fitted to the content.
    whole = compressor.compress(bytes(1000)) + compressor.flush()
    block = bytes((entropy.ONCE,)) + whole[len(entropy.FRAME_START) :]
    with pytest.raises(ValueError, match="coded block"):
        entropy.expand(block, 1000)


@pytest.mark.parametrize("kind", [entropy.ONCE, entropy.TWICE])
def test_frame_that_expands_to_far_more(kind: int) -> None:
    bomb = bytes((kind,)) + frame(bytes(2**24))[1:]
    if kind == entropy.TWICE:
        bomb = bytes((kind,)) + frame(frame(bytes(2**28))[1:])[1:]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="coded block"):
            entropy.expand(bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


def test_split_deeper_than_allowed() -> None:
    inner = bytes((entropy.RAW,)) + bytes(8)
    for _ in range(entropy.MAX_DEPTH + 1):
        flags = bytes((entropy.RAW, 255, 1))
        inner = bytes((entropy.SPLIT, 0)) + len(flags).to_bytes(3, "little") + flags + inner
    with pytest.raises(ValueError, match="kind"):
        entropy.expand(inner, 8)


def test_flags_longer_than_the_block() -> None:
    with pytest.raises(ValueError, match="truncated"):
        entropy.expand(bytes((entropy.SPLIT, 0, 255, 255, 255)) + bytes(10), 100)


@pytest.mark.parametrize("others", [0, 3, 5])
def test_flags_of_another_count(others: int) -> None:
    flags = bytes((entropy.RAW, 0b1111, 1))
    block = bytes((entropy.SPLIT, 0)) + len(flags).to_bytes(3, "little") + flags
    with pytest.raises(ValueError, match="coded block"):
        entropy.expand(block + bytes((entropy.RAW,)) + bytes(others), 8)


@pytest.mark.parametrize("last", [0b00000001, 0b00100001, 0b10010001])
def test_flags_of_another_length(last: int) -> None:
    flags = bytes((entropy.RAW, last))
    block = bytes((entropy.SPLIT, 9)) + len(flags).to_bytes(3, "little") + flags
    with pytest.raises(ValueError, match="not of 4 bytes"):
        entropy.expand(block + bytes((entropy.RAW, 5)), 4)
