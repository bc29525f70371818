"""Models, differences and updates as bytes in a message of Flower, and back."""

from collections.abc import Callable, Iterator, Sequence
from math import hypot

import numpy as np

from fedaq.codec import chunks, coding, headers, holding, model, payload, statistics
from fedaq.codec.chunks import Chunk
from fedaq.codec.given import Given, Past
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Key, Spread
from fedaq.errors import ProtocolError
from fedaq.flower.layout import Layout, from_message
from fedaq.v1 import federation_pb2
from fedaq.v1 import flower_pb2 as pb

# The records in which these bytes and a node's state lie, and the field of the former.
RECORD, FIELD = "fedaq", "coded"
# With these words begins the reason of a node that lacks what a difference is added to.
LACKING = "fedaq: this node does not hold the model that a difference is for"
# Entropy-coded at a time; the whole message is in memory anyway.
CHUNK_BYTES = 2**20


class Held:
    """The model that both ends hold.

    Attributes
    ----------
    layout : Layout
    flat : float32, shape (parameters,)
        The coded arrays.
    exact : bytes
        The others.
    past : Past
        What the last differences had.
    """

    def __init__(self, layout: Layout, flat: Floats, exact: bytes, past: Past) -> None:
        self.layout, self.flat, self.exact, self.past = layout, flat, exact, past

    def digest(self) -> bytes:
        """Return 8 bytes that tell models apart."""
        found = model.hashed(self.flat, self.past.noted)
        found.update(self.exact)
        of = self.layout
        found.update(repr((of.names, of.shapes, of.dtypes, of.exact)).encode())
        return found.digest()


def encoded(
    header: Payload,
    values_at: Callable[[slice], Floats],
    keys: tuple[Key, ...],
    round_number: int,
    *,
    nearest: bool,
    known: Given | None = None,
    limit_bytes: int = 0,
) -> tuple[Payload, list[Chunk]]:
    """Quantize and entropy-code values, within a limit if there is one.

    Parameters
    ----------
    header : Payload
    values_at : callable
        Returns the float32 values at a slice of the flat array of all tensors.
    keys : tuple of Key
        A random stream per tensor.
    round_number : int
    nearest : bool
        Round to the nearest code, not at random.
    known : Given, optional
        What the receiver knows of the codes.
    limit_bytes : int
        Of header and codes; 0: none.
    """

    def code(tried: Payload) -> list[Chunk]:
        return [
            coding.encode(
                tried, values_at, keys, offset, length, round_number,
                squeeze=True, nearest=nearest, known=known,
            )[0]
            for offset, length in tried.chunks(CHUNK_BYTES)
        ]  # fmt: skip

    return coding.within(header, limit_bytes, code) if limit_bytes else (header, code(header))


def to_message(
    header: Payload, coded: list[Chunk], round_number: int, base: bytes = b""
) -> pb.FlowerPayload:
    """Return a payload as it travels."""
    return pb.FlowerPayload(
        header=payload.to_message(header, round_number, base),
        chunks=[chunk.to_message() for chunk in coded],
    )


def header_of(spec: ModelSpec, message: pb.FlowerPayload) -> Payload:
    """Read and check the header of a payload that came from a peer.

    Raises
    ------
    ProtocolError
        If it is not one of this model.
    """
    return headers.from_message(spec, message.header)


def chunks_of(header: Payload, message: pb.FlowerPayload) -> Iterator[Chunk]:
    """Yield the chunks of a payload from a peer.

    Raises
    ------
    ProtocolError
        If one is missing or out of place.
    """
    received = 0
    for part in message.chunks:
        chunk = chunks.read(part)
        if chunk.offset != received or chunk.size == 0:
            raise ProtocolError(
                federation_pb2.REFUSAL_REASON_OUT_OF_ORDER,
                f"a chunk for byte {chunk.offset}, where byte {received} is next",
            )
        yield chunk
        received += chunk.size
    if received != header.code_bytes:
        raise ProtocolError(
            federation_pb2.REFUSAL_REASON_WRONG_SIZE,
            f"{received} code bytes; the header announces {header.code_bytes}",
        )


def after(held: Held | None, message: pb.FlowerPayload) -> Held | None:
    """Return what is held after a payload; what is held now if that is for another model.

    Raises
    ------
    ProtocolError, ValueError
        If it is broken.
    """
    if not message.header.base:
        layout = from_message(message.layout)
        header = header_of(layout.spec, message)
        flat, past = np.zeros(layout.spec.parameters, np.float32), Past.none(layout.spec.parameters)
        for chunk in chunks_of(header, message):
            holding.decode_whole(header, chunk, flat, past)
    elif held is None or held.digest() != message.header.base:
        return held
    else:
        layout = held.layout.having(message.dtypes) if message.dtypes else held.layout
        header = header_of(layout.spec, message)
        flat, past = held.flat.copy(), Past(held.past.noted.copy())
        before = statistics.taken_out(layout.spec, flat)
        for chunk in chunks_of(header, message):
            holding.add_difference(header, coding.decode(header, chunk, past), flat, past)
        past.remember_nothing(header)
        statistics.put_back(layout.spec, flat, before)
    exact = message.exact
    if held is not None and message.header.base and not exact:
        exact = held.exact
    if len(exact) != layout.exact_bytes:
        raise ValueError(f"{len(exact)} bytes of exact arrays; they have {layout.exact_bytes}")
    return Held(layout, flat, exact, past)


# ---- What an update was like -----------------------------------------------------


def spreads_to_bytes(spreads: Sequence[Spread]) -> bytes:
    """Return root mean square and mean magnitude of every tensor of an update, 4 bytes each."""
    numbers = [(hypot(spread.mean, spread.deviation), spread.magnitude) for spread in spreads]
    words = np.array(numbers, "<f4").reshape(-1, 2).view("<u2")
    return np.ascontiguousarray(words[:, 1::2]).tobytes()


def spreads_from_bytes(data: bytes, tensors: int) -> Floats:
    """Return what `spreads_to_bytes` wrote, float32, shape (tensors, 2).

    Raises
    ------
    ValueError
        If it cannot be.
    """
    if len(data) != 4 * tensors:
        raise ValueError(f"{len(data)} bytes of spreads for {tensors} tensors")
    words = np.zeros((tensors, 4), "<u2")
    words[:, 1::2] = np.frombuffer(data, "<u2").reshape(-1, 2)
    numbers = words.view("<f4").astype(np.float32)
    if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise ValueError("spreads that are not finite, or negative")
    return numbers
