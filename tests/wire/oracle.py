"""The wire a second time, from docs/reference/wire-format.md and not from the product's code.

Codes are packed by `bitarray`, arithmetic is Python's own binary64 and exact fractions.
"""

import struct
from collections.abc import Sequence
from fractions import Fraction

from bitarray import bitarray
from bitarray.util import ba2int, int2ba


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
