"""Packed code bytes, which the wire is specified in, to and from the chunks that carry them."""

from collections.abc import Callable

import numpy as np

from fedaq.codec import coding
from fedaq.codec.chunks import Chunk
from fedaq.codec.given import Given
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Key


def encode_chunk(
    header: Payload,
    values_at: Callable[[slice], Floats],
    keys: tuple[Key, ...],
    offset: int,
    length: int,
    *,
    nearest: bool = False,
) -> memoryview:
    """Return one chunk's packed codes."""
    chunk, _ = coding.encode(
        header, values_at, keys, offset, length, 0, squeeze=False, nearest=nearest
    )
    return memoryview(chunk.data)


def to_chunk(
    header: Payload, number: int, offset: int, codes: bytes | memoryview, *, squeeze: bool
) -> Chunk:
    """Return packed codes as a chunk, entropy-coded where that is asked for and shorter."""
    if not squeeze:
        return Chunk(number, offset, codes)
    content = coding.packed_content(header, offset, np.frombuffer(codes, np.uint8))
    return coding.to_chunk(content, offset, len(codes), number)


def codes_of(header: Payload, chunk: Chunk, known: Given | None = None) -> bytes:
    """Return the packed codes that a chunk stands for."""
    return b"".join(codes.packed().tobytes() for _, codes in coding.decode(header, chunk, known))


def decode_chunk(
    header: Payload, offset: int, data: bytes | memoryview, flat: Floats, *, add: bool = False
) -> None:
    """Decode packed codes into their place in `flat`, or add them to what is there."""
    coding.decode_into(header, Chunk(0, offset, data), flat, add=add)
