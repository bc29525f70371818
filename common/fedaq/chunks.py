"""Chunks as they travel: packed codes, entropy-coded where that is shorter.

The entropy coder works on the codes of one tensor in one chunk at a time, so that chunks
still can be coded and decoded on their own, and it is used only where it saves bytes.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedaq import entropy, kernels
from fedaq.errors import ProtocolError
from fedaq.payload import Payload, Piece
from fedaq.quantizer import RAW_BITS, packed_bytes
from fedaq.v1 import federation_pb2 as pb

Bytes = NDArray[np.uint8]

BYTE_BITS = 8


def to_chunk(
    header: Payload, round_number: int, offset: int, codes: bytes, *, squeeze: bool
) -> pb.Chunk:
    """Return the message that carries packed code bytes.

    Parameters
    ----------
    header : Payload
    round_number : int
    offset : int
        Where `codes` begin in the code bytes of the payload.
    codes : bytes
        Packed codes.
    squeeze : bool
        Entropy-code them where that is shorter.
    """
    plain = pb.Chunk(round=round_number, offset=offset, data=codes)
    if not squeeze:
        return plain
    parts, lengths = [], []
    for piece in header.pieces(offset, len(codes)):
        packed = codes[piece.data]
        bits = header.codes[piece.tensor].bits
        coded = packed if bits == RAW_BITS else _squeezed(packed, bits, piece.values)
        shorter = len(coded) < len(packed)
        parts.append(coded if shorter else packed)
        lengths.append(len(coded) if shorter else 0)
    chunk = pb.Chunk(
        round=round_number,
        offset=offset,
        data=b"".join(parts),
        code_bytes=len(codes),
        coded_bytes=lengths,
    )
    return chunk if cost_bytes(chunk) < len(codes) else plain


def code_bytes(chunk: pb.Chunk) -> int:
    """Return how many packed code bytes a chunk stands for."""
    return chunk.code_bytes or len(chunk.data)


def cost_bytes(chunk: pb.Chunk) -> int:
    """Return the bytes of a chunk that energy is charged for: all that carries codes."""
    return len(chunk.data) + _lengths(chunk).ByteSize()


def _lengths(chunk: pb.Chunk) -> pb.Chunk:
    return pb.Chunk(code_bytes=chunk.code_bytes, coded_bytes=chunk.coded_bytes)


def codes_of(header: Payload, chunk: pb.Chunk) -> bytes:
    """Return the packed code bytes that a chunk from a peer stands for.

    Raises
    ------
    ProtocolError
        If it does not fit the payload, or an entropy-coded part is broken. Nothing is
        allocated for what its lengths claim beyond what the payload has room for.
    """
    if not chunk.code_bytes:
        return chunk.data
    pieces = list(header.pieces(chunk.offset, chunk.code_bytes))
    if len(chunk.coded_bytes) != len(pieces):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"the chunk at byte {chunk.offset} has {len(chunk.coded_bytes)} lengths for "
            f"{len(pieces)} tensors",
        )
    return b"".join(_packed(header, chunk, pieces))


def _packed(header: Payload, chunk: pb.Chunk, pieces: list[Piece]) -> Iterator[bytes]:
    # Once: each access to the field copies it.
    content, at = chunk.data, 0
    for piece, coded_bytes in zip(pieces, chunk.coded_bytes, strict=True):
        tensor = header.spec.tensors[piece.tensor].name
        end = at + (coded_bytes or piece.data.stop - piece.data.start)
        data = content[at:end]
        if len(data) != end - at:
            raise ProtocolError(
                pb.REFUSAL_REASON_WRONG_SIZE,
                f"the chunk at byte {chunk.offset} ends in the codes of tensor {tensor}",
            )
        try:
            bits = header.codes[piece.tensor].bits
            yield _expanded(data, bits, piece.values) if coded_bytes else data
        except ValueError as error:
            raise ProtocolError(
                pb.REFUSAL_REASON_BROKEN_CODE, f"tensor {tensor}: {error}"
            ) from None
        at = end
    if at != len(content):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"the chunk at byte {chunk.offset} has {len(content) - at} bytes too many",
        )


def _squeezed(packed: bytes, bits: int, values: int) -> bytes:
    """Entropy-code packed codes; of those of more than 8 bits, the highest 8."""
    symbols = _repacked(np.frombuffer(packed, np.uint8), bits, _aligned(bits), values)
    if bits <= BYTE_BITS:
        return entropy.compress(symbols)
    words, low_bits = symbols.view("<u2"), bits - BYTE_BITS
    high = entropy.compress((words >> low_bits).astype(np.uint8))
    low = (words & ((1 << low_bits) - 1)).astype("<u2").view(np.uint8)
    # Of wide codes, the lowest bits are as good as random.
    return high + _repacked(low, 2 * BYTE_BITS, low_bits, values).tobytes()


def _expanded(coded: bytes, bits: int, values: int) -> bytes:
    """Return the packed codes: `_squeezed` backwards.

    Raises
    ------
    ValueError
        If `coded` is not what that many codes were coded to.
    """
    if bits == RAW_BITS:
        raise ValueError("raw values cannot be entropy-coded")
    width = _aligned(bits)
    if bits <= BYTE_BITS:
        symbols = entropy.expand(coded, packed_bytes(values, width))
    else:
        low_bits = bits - BYTE_BITS
        split = len(coded) - packed_bytes(values, low_bits)
        high = entropy.expand(coded[: max(split, 0)], values)
        low = np.frombuffer(coded, np.uint8)[split:]
        words = _repacked(low, low_bits, 2 * BYTE_BITS, values).view("<u2")
        symbols = (words | high.astype("<u2") << low_bits).view(np.uint8)
    return _repacked(symbols, width, bits, values).tobytes()


def _aligned(bits: int) -> int:
    """Return the next width of which whole codes fill bytes."""
    return next(width for width in (1, 2, 4, 8, 16) if width >= bits)


def _repacked(data: Bytes, bits: int, width: int, values: int) -> Bytes:
    if bits == width:
        return data
    out = np.empty(packed_bytes(values, width), np.uint8)
    kernels.repack(data, bits, width, values, out)
    return out
