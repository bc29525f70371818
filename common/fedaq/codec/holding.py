"""A model that is held, and its past: what whole models and differences make of them."""

from dataclasses import replace

from fedaq.codec import coding, kernels
from fedaq.codec.chunks import Chunk
from fedaq.codec.coding import Content
from fedaq.codec.given import Past, values_of
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb


def decode_whole(header: Payload, chunk: Chunk, held: Floats, past: Past) -> None:
    """Decode a chunk of a whole model, and what its last differences had.

    Raises
    ------
    ProtocolError
        As `coding.decode_into`.
    """
    coding.decode_into(header, chunk, held)
    take_past(header, chunk, past)


def take_past(header: Payload, chunk: Chunk, past: Past) -> None:
    """Take over what comes with a chunk of what the last differences had for its values.

    Raises
    ------
    ProtocolError
        If it is broken.
    """
    try:
        past.unpack(values_of(header, header.pieces(chunk.offset, chunk.size)), chunk.past)
    except ValueError as error:
        raise ProtocolError(pb.REFUSAL_REASON_BROKEN_CODE, f"past: {error}") from None


def add_difference(header: Payload, content: Content, held: Floats, past: Past) -> None:
    """Add the values of a difference's codes to what is held, and note what it had."""
    coding.write(header, content, held, add=True)
    for piece, codes in content:
        if codes.code.step:
            noted = past.noted[header.place(piece)]
            kernels.remember(noted, codes.data, codes.code.bits, codes.code.zero, width=codes.width)


def with_past(header: Payload, chunk: Chunk, past: Past) -> Chunk:
    """Return a chunk of a whole model with what its last differences had."""
    part = values_of(header, header.pieces(chunk.offset, chunk.size))
    return replace(chunk, past=past.packed(part))
