"""Entropy coding of quantization codes that are aligned to bytes.

A block of bytes, each of one or several whole codes, is coded with Huffman codes alone:
zstd with its search for matches off, which in codes that do not depend on each other
finds nothing but coincidences, dearer than the bytes they replace (up to 1.9 times the
entropy, and slower). Huffman codes have whole bits, and that fails for a byte of little
entropy, so

- what comes out far smaller than it went in is coded once more: the bits of the most
  frequent byte then go eight to a byte;
- where one byte, the mode, makes up most of a block, the block is split in two streams,
  one flag a byte for "not the mode", eight to a byte, and the bytes that are not. Nothing
  is lost by that, and both are coded as blocks of their own. One more flag, set, ends the
  flags, so that a block of another length is found out.

A coded block is one byte of kind and what the kind says:

====  ==========================================================================
kind  content
====  ==========================================================================
0     the bytes
1     a zstd frame without its first five bytes
2     the same, of a zstd frame without its first five bytes
3     the mode; three bytes, little-endian, of the size of the next; coded flags;
      coded bytes that are not the mode
====  ==========================================================================
"""

import sys
import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import kernels

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Symbols = NDArray[np.uint8]

# A length has three bytes in a split block.
MAX_LENGTH: Final = 2**24 - 1

RAW, ONCE, TWICE, SPLIT = range(4)

# `ZSTD_c_literalCompressionMode` and its value "always": without it zstd would leave out
# Huffman codes, too, when its search is as hasty as below. Both are of zstd's experimental
# interface, which may change; a test would show it. They matter to the sender alone: the
# frame is an ordinary one.
LITERAL_COMPRESSION = 1002
ALWAYS = 1
# The longest stride between two searches for a match: no block has room for a second one.
LONGEST_STRIDE = 2**17
# zstd's blocks hold 128 KiB, but not more than the window. A decoder's memory is that of
# the window, so no larger one is accepted.
WINDOW_LOG = 17
OPTIONS: Final[dict[int, int]] = {
    zstd.CompressionParameter.strategy: zstd.Strategy.fast,
    zstd.CompressionParameter.target_length: LONGEST_STRIDE,
    LITERAL_COMPRESSION: ALWAYS,
    # The tables of the search, cleared for each block, as small as they can be.
    zstd.CompressionParameter.hash_log: 6,
    zstd.CompressionParameter.chain_log: 6,
    zstd.CompressionParameter.min_match: 7,
    zstd.CompressionParameter.window_log: WINDOW_LOG,
    zstd.CompressionParameter.content_size_flag: 0,
    zstd.CompressionParameter.checksum_flag: 0,
}
EXPAND_OPTIONS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
# The magic number, and flags of a frame without size, checksum and dictionary. As it is not
# sent, nobody can send another.
FRAME_START = b"\x28\xb5\x2f\xfd\x00"

# A second coding gains as soon as codes of one bit, the shortest, are frequent. At 0.35
# the first has come down to 2.8 bits a byte.
TWICE_BELOW = 0.35
# Share of the mode from which on a block is split at once.
SPLIT_SHARE = 0.65
# From this share on, a whole block is split if Huffman codes alone miss the entropy by more
# than 2.5 %, of which the estimate may be wrong by 0.7 %. To split takes twice the time.
RETRY_SHARE = 0.2
RETRY_EXCESS = 1.025
# What was split off is less, so its time matters less.
SPLIT_SHARE_OF_OTHERS = 0.45
# A split of less gains a few bytes, and two frames take 30 us however short they are.
SMALLEST_SPLIT = 512
# Splits within splits. The limit bounds the time and the memory that a block can ask for.
MAX_DEPTH = 6
# Bytes whose entropy is estimated: a tenth of the time of coding 128 KiB.
SAMPLE = 2**13

_contexts = threading.local()


def compress(symbols: Symbols) -> bytes:
    """Code a block of bytes in about their entropy.

    Parameters
    ----------
    symbols : uint8, shape (n,)
        At most `MAX_LENGTH`. Bytes are taken to be independent of each other.

    Raises
    ------
    ValueError
        If there are more.
    """
    if symbols.size > MAX_LENGTH:
        raise ValueError(f"{symbols.size} bytes, more than {MAX_LENGTH}, in a block")
    return _compress(np.ascontiguousarray(symbols), SPLIT_SHARE, MAX_DEPTH)


def expand(data: bytes | memoryview, length: int) -> Symbols:
    """Return the `length` bytes that a block was coded from; they may be read-only.

    Whatever `data` holds, memory stays below a small multiple of `length` and time in
    proportion to `length` and the size of `data`.

    Raises
    ------
    ValueError
        If `data` is not a whole coded block of `length` bytes and nothing else.
    """
    return _expand(memoryview(data), length, MAX_DEPTH)


def _compress(symbols: Symbols, split_share: float, depth: int) -> bytes:
    if depth == 0 or symbols.size < SMALLEST_SPLIT:
        return _compress_huffman(symbols)
    mode, share, entropy = _statistics(symbols)
    if share >= split_share:
        return _compress_split(symbols, mode, depth - 1)
    coded = _compress_huffman(symbols)
    if (
        depth == MAX_DEPTH
        and share >= RETRY_SHARE
        and len(coded) > RETRY_EXCESS * entropy / 8 * symbols.size
    ):
        return min(coded, _compress_split(symbols, mode, depth - 1), key=len)
    return coded


def _statistics(symbols: Symbols) -> tuple[int, float, float]:
    """Return the most frequent byte, its share, and the entropy a byte in bits.

    All three are of a sample from the whole block. Its stride is odd, so as not to hit the
    same few columns of a matrix of weights again and again.
    """
    counts = kernels.histogram(symbols, symbols.size // SAMPLE | 1)
    shares = counts[counts > 0] / counts.sum()
    mode = int(counts.argmax())
    return mode, float(shares.max()), float(-shares @ np.log2(shares))


def _compress_split(symbols: Symbols, mode: int, depth: int) -> bytes:
    flags = np.empty(symbols.size // 8 + 1, np.uint8)
    others = np.empty(symbols.size + 1, np.uint8)
    count = kernels.split_mode(symbols, mode, flags, others)
    coded_flags = _compress(flags, SPLIT_SHARE, depth)
    coded_others = _compress(others[:count], SPLIT_SHARE_OF_OTHERS, depth)
    head = bytes((SPLIT, mode)) + len(coded_flags).to_bytes(3, "little")
    return b"".join((head, coded_flags, coded_others))


def _compress_huffman(symbols: Symbols) -> bytes:
    once = _frame(symbols.data)
    if len(once) < TWICE_BELOW * symbols.size:
        twice = _frame(once)
        if len(twice) < len(once):
            return bytes((TWICE,)) + twice
    if len(once) < symbols.size:
        return bytes((ONCE,)) + once
    return bytes((RAW,)) + symbols.tobytes()


def _frame(content: bytes | memoryview) -> bytes:
    """Return the zstd frame of `content` without `FRAME_START`."""
    compressor = _compressor()
    frame = compressor.compress(content, compressor.FLUSH_FRAME)
    return frame[len(FRAME_START) :]


def _compressor() -> zstd.ZstdCompressor:
    """Return the compressor of this thread: no two threads can use one at a time."""
    try:
        compressor: zstd.ZstdCompressor = _contexts.compressor
    except AttributeError:
        compressor = _contexts.compressor = zstd.ZstdCompressor(options=OPTIONS)
    return compressor


def _expand(data: memoryview, length: int, depth: int) -> Symbols:
    if len(data) == 0:
        raise ValueError("coded block: empty")
    kind, content = data[0], data[1:]
    if kind == SPLIT and depth > 0:
        return _expand_split(content, length, depth - 1)
    if kind == TWICE:
        # A coding that does not make it smaller is not used.
        content = memoryview(_content(content, length))
    if kind in (ONCE, TWICE):
        symbols = np.frombuffer(_content(content, length), np.uint8)
    elif kind == RAW:
        symbols = np.frombuffer(content, np.uint8)
    else:
        raise ValueError(f"coded block: kind {kind}")
    if symbols.size != length:
        raise ValueError(f"coded block: not of {length} bytes")
    return symbols


def _expand_split(data: memoryview, length: int, depth: int) -> Symbols:
    if len(data) < 4:
        raise ValueError("coded block: truncated")
    mode = data[0]
    coded_flags = int.from_bytes(data[1:4], "little")
    streams = data[4:]
    if coded_flags > len(streams):
        raise ValueError("coded block: truncated")
    flags = _expand(streams[:coded_flags], length // 8 + 1, depth)
    if flags[-1] >> (length & 7) != 1:
        raise ValueError(f"coded block: not of {length} bytes")
    count = kernels.count_flags(flags, length)
    others = np.empty(count + 1, np.uint8)
    others[:count] = _expand(streams[coded_flags:], count, depth)
    others[count] = mode
    symbols = np.empty(length, np.uint8)
    kernels.merge_mode(flags, mode, others, symbols)
    return symbols


def _content(data: memoryview, most: int) -> bytes:
    """Return what a zstd frame without `FRAME_START` holds, at most `most` bytes."""
    expander = zstd.ZstdDecompressor(options=EXPAND_OPTIONS)
    try:
        expander.decompress(FRAME_START)
        content = expander.decompress(data, most)
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"coded block: {error}") from None
    if not expander.eof or expander.unused_data:
        raise ValueError(f"coded block: truncated or of more than {most} bytes")
    return content
