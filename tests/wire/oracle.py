"""The wire a second time, from docs/reference/wire-format.md and not from the product's code.

Codes are packed by `bitarray`, frames are zstd's own, arithmetic is Python's own binary64 and exact
fractions. Messages are protobuf's.
"""

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b
from math import prod

from bitarray import bitarray
from bitarray.util import ba2int, int2ba

from fedaq.v1 import federation_pb2 as pb
from wire import oracle_classes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def binary32(value: float) -> float:
    """Round to binary32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def pattern(value: float) -> str:
    """Return the bit pattern of a binary32 value in hex."""
    return struct.pack(">f", value).hex()


def from_pattern(text: str) -> float:
    return float(struct.unpack(">f", bytes.fromhex(text))[0])


def pack(codes: Sequence[int], bits: int) -> bytes:
    stream = bitarray(endian="little")
    for code in codes:
        stream += int2ba(code, length=bits, endian="little")
    return stream.tobytes()


def unpack(data: bytes, bits: int, count: int) -> list[int]:
    stream = bitarray(data, endian="little")
    return [ba2int(stream[i * bits : (i + 1) * bits]) for i in range(count)]


def step(lo: float, hi: float, bits: int) -> float:
    return binary32((hi - lo) / (2**bits - 1))


def value(code: int, lo: float, hi: float, bits: int) -> float:
    """Return the binary32 value of a code, and check that its product is exact."""
    product = step(lo, hi, bits) * code
    assert Fraction(product) == Fraction(step(lo, hi, bits)) * code
    return binary32(lo + product)


def raw(data: bytes) -> list[float]:
    return [float(v) for (v,) in struct.iter_unpack("<f", data)]


# ---- Entropy-coded blocks ----------------------------------------------------

FRAME_START = bytes.fromhex("28b52ffd00")
FRAME_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.window_log: 17,
    zstd.CompressionParameter.content_size_flag: 0,
    zstd.CompressionParameter.checksum_flag: 0,
}


def unsplit_block(kind: int, content: bytes) -> bytes:
    """Return a block of kind 0, 1 or 2."""
    coded = content
    for _ in range(kind):
        frame = zstd.compress(coded, options=FRAME_OPTIONS)
        assert frame.startswith(FRAME_START)
        coded = frame.removeprefix(FRAME_START)
    return bytes([kind]) + coded


def split_block(content: bytes, split: Callable[[bytes], bytes]) -> bytes:
    """Return a block of kind 3, whose two streams `split` codes."""
    mode = max(content, key=content.count)
    flags = bitarray((byte != mode for byte in content), endian="little")
    flags.append(1)
    coded_flags = split(flags.tobytes())
    others = split(bytes(byte for byte in content if byte != mode))
    return bytes([3, mode]) + len(coded_flags).to_bytes(3, "little") + coded_flags + others


def expand(block: bytes, length: int, kinds: set[tuple[int, int]], depth: int = 0) -> bytes:
    """Return what a block stands for; add the kinds that are in it, and how deep, to `kinds`."""
    kind, content = block[0], block[1:]
    kinds.add((kind, depth))
    if kind == 3:
        end = 4 + int.from_bytes(content[1:4], "little")
        flags = bitarray(expand(content[4:end], length // 8 + 1, kinds, depth + 1), endian="little")
        assert flags[length] == 1
        assert not flags[length + 1 :].any()
        others = iter(expand(content[end:], flags[:length].count(), kinds, depth + 1))
        return bytes(next(others) if flag else content[0] for flag in flags[:length])
    for _ in range(kind):
        content = zstd.decompress(FRAME_START + content)
    assert len(content) == length
    return content


# ---- Payloads ------------------------------------------------------------------


@dataclass
class Seen:
    """What payloads made use of: kinds of blocks and how deep, and codecs and their bits.

    Of each block of codes by classes, `known` has their bits and number; `pasts` tells if any
    is not 0.
    """

    kinds: set[tuple[int, int]] = field(default_factory=set)
    known: list[tuple[int, int]] = field(default_factory=list)
    pasts: bool = False
    coded_bits: set[int] = field(default_factory=set)
    packed: set[tuple[str, int]] = field(default_factory=set)


@dataclass
class Part:
    """What a chunk holds of a tensor: values from number `first` on, in so many packed bytes."""

    tensor: int
    first: int
    count: int
    size: int


def parts_of(
    tensors: Sequence[pb.TensorHeader], counts: list[int], low: int, high: int
) -> list[Part]:
    """Return the parts in these of the code bytes."""
    found, start = [], 0
    for number, (tensor, count) in enumerate(zip(tensors, counts, strict=True)):
        stop = start + (count * tensor.bits + 7) // 8
        begin, end = max(start, low), min(stop, high)
        if begin < end:
            first = (begin - start) * 8 // tensor.bits
            last = count if end == stop else (end - start) * 8 // tensor.bits
            found.append(Part(number, first, last - first, end - begin))
        start = stop
    return found


def captured_values(captured: pb.CapturedPayload, seen: Seen) -> list[float]:
    """Return the values that a captured payload stands for."""
    counts = [prod(tensor.shape) for tensor in captured.model.tensors]
    tensors = captured.header.tensors
    keys = [(key % 2**32, key >> 32) for key in captured.keys]
    values: list[list[float]] = [[] for _ in counts]
    whole = pb.Chunk(data=captured.codes)
    at = 0
    for chunk in captured.chunks or [whole]:
        assert chunk.offset == at
        at += chunk.code_bytes or len(chunk.data)
        data, lengths = chunk.data, iter(chunk.coded_bytes)
        parts = parts_of(tensors, counts, chunk.offset, at)
        places = [sum(counts[: part.tensor]) + part.first for part in parts]
        pasts = pasts_of(chunk, places[-1] + parts[-1].count - places[0]) if parts else []
        seen.pasts |= any(pasts)
        for part, place in zip(parts, places, strict=True):
            tensor = tensors[part.tensor]
            coded = next(lengths) if chunk.code_bytes else 0
            content, data = data[: coded or part.size], data[coded or part.size :]
            assert len(values[part.tensor]) == part.first
            if coded and content[0] == 4:
                if keys:
                    key = keys[part.tensor]
                    indices = range(part.first, part.first + part.count)
                    classes = [oracle_classes.dither_class(i, tensor.bits, *key) for i in indices]
                else:
                    own = pasts[place - places[0] :][: part.count]
                    classes = [oracle_classes.past_class(past) for past in own]
                found = _by_classes(tensor, content, classes, seen)
            else:
                found = _values(tensor, content, part.count, seen, coded=coded > 0)
            values[part.tensor].extend(found)
        assert (list(lengths), data) == ([], b"")
    assert at == captured.header.code_bytes
    for tensor, count, found in zip(tensors, counts, values, strict=True):
        if tensor.codec == pb.CODEC_ZERO:
            seen.packed.add(("CODEC_ZERO", 0))
            found.extend([0.0] * count)
        assert len(found) == count
    return [value for found in values for value in found]


def pasts_of(chunk: pb.Chunk, count: int) -> list[int]:
    """Return the pasts of so many values of a chunk."""
    if not chunk.past:
        return [0] * count
    return unpack(expand(chunk.past, (count + 1) // 2, set()), 4, count)


def _by_classes(
    tensor: pb.TensorHeader, block: bytes, classes: list[oracle_classes.Class], seen: Seen
) -> list[float]:
    assert tensor.codec == pb.CODEC_STEP
    assert 1 <= tensor.bits <= 8
    seen.kinds.add((4, 0))
    seen.known.append((tensor.bits, len(classes)))
    codes = oracle_classes.decode(block[1:], classes, tensor.zero, tensor.bits)
    return _around_zero(tensor, codes)


def _values(
    tensor: pb.TensorHeader, part: bytes, count: int, seen: Seen, *, coded: bool
) -> list[float]:
    if tensor.codec == pb.CODEC_RAW:
        seen.packed.add(("CODEC_RAW", 32))
        return raw(part)
    if coded:
        seen.coded_bits.add(tensor.bits)
        codes = _expanded(part, tensor.bits, count, seen)
    else:
        seen.packed.add((pb.Codec.Name(tensor.codec), tensor.bits))
        codes = unpack(part, tensor.bits, count)
    if tensor.codec == pb.CODEC_UNIFORM:
        return [value(code, tensor.lo, tensor.hi, tensor.bits) for code in codes]
    return _around_zero(tensor, codes)


def _around_zero(tensor: pb.TensorHeader, codes: list[int]) -> list[float]:
    each = {
        code: binary32(float((code - tensor.zero) * Fraction(tensor.step))) for code in set(codes)
    }
    return [each[code] for code in codes]


def _expanded(part: bytes, bits: int, count: int, seen: Seen) -> list[int]:
    if bits <= 8:
        width = min(w for w in (1, 2, 4, 8) if w >= bits)
        return unpack(expand(part, (count * width + 7) // 8, seen.kinds), width, count)
    split = len(part) - (count * (bits - 8) + 7) // 8
    low = unpack(part[split:], bits - 8, count)
    high = expand(part[:split], count, seen.kinds)
    return [a << (bits - 8) | b for a, b in zip(high, low, strict=True)]


def digest(values: Sequence[float]) -> bytes:
    return blake2b(struct.pack(f"<{len(values)}f", *values), digest_size=8).digest()


# ---- The next model --------------------------------------------------------------


def unit(examples: int) -> Fraction:
    """Return what 1 in the sum stands for."""
    return 1 / Fraction(2) ** (44 - examples.bit_length())


def term(code: int, bits: int, lo: float, step: float, weight: int, unit: Fraction) -> int:
    """Return what a code of an update of this weight adds to the sum."""
    reach = int(Fraction(step) * (2**bits - 1) * weight / unit)
    shift = max(0, min(30, 61 - reach.bit_length()))
    slope = round(Fraction(step) * weight * (1 << shift) / unit)
    return round(Fraction(lo) * weight / unit) + (slope * code + (1 << shift) // 2) // (1 << shift)


def raw_term(value: float, weight: int, unit: Fraction) -> int:
    return round(float(Fraction(value) * weight / unit))
