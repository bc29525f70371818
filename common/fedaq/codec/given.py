"""What both ends know of codes before they come, and the coder that makes use of it.

A value of which 0.9 was added before it was cut off to a whole code is not 0 only if it is above
0.1; one of which 0.5 was added has to be above 0.5. Both ends know these numbers: a hash of the
run's seed, the client, the round and the place (`Dither`; a dither that both ends know is that of
UVeQFed, arXiv 2006.03262, section III). So codes take half the bits where most of them are 0.
Of what goes down nothing is added at random, but what the last differences had for a value tells
how likely this one has something (`Past`).

Either way values fall into classes, and a range coder (``native/given.c``) learns the odds of each
class as it goes. Nothing but its bytes travels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import entropy, kernels, quantizer
from fedaq.codec.payload import Payload, Piece
from fedaq.codec.quantizer import Key, packed_bytes

Bytes = NDArray[np.uint8]

# In front of a block, beside the kinds of `entropy`.
GIVEN = 4
# Codes of more bits are far from mostly 0.
MOST_BITS = 8
# Where fewer codes are 0, the coder is no faster than others and gains a tenth at the most.
LEAST_ZEROS = 0.4
# Bits in which the past of a value travels.
_PAST_BITS = 4


class Given(Protocol):
    """What both ends know."""

    def classes(self, header: Payload, piece: Piece) -> Bytes:
        """Return the class of each value of a piece."""


@dataclass(frozen=True)
class Nothing:
    """Of values that are rounded to the nearest codes, and have no past, nothing is known."""

    def classes(self, header: Payload, piece: Piece) -> Bytes:
        """Return the class of each value of a piece: all have the one of a past of nothing."""
        return np.zeros(piece.values, np.uint8)


NOTHING = Nothing()


@dataclass(frozen=True)
class Dither:
    """The numbers by which values were rounded at random.

    Attributes
    ----------
    key_of : callable
        Returns the random stream of a tensor, by its number.
    """

    key_of: Callable[[int], Key]

    def classes(self, header: Payload, piece: Piece) -> Bytes:
        """Return the class of each value of a piece."""
        key, found = self.key_of(piece.tensor), np.empty(piece.values, np.uint8)
        bits = header.codes[piece.tensor].bits
        kernels.dither_classes(piece.first & 0xFFFFFFFF, bits, key.word0, key.word1, found)
        return found


@dataclass(frozen=True)
class Past:
    """What the last two differences had for every value: up, down or nothing, and how much.

    Attributes
    ----------
    noted : uint8, shape (parameters,)
        A number below 16 each (docs/reference/wire-format.md), 0 where they had nothing.
    """

    noted: Bytes

    @classmethod
    def none(cls, parameters: int) -> "Past":
        """Return that of a model to which nothing was added."""
        return cls(np.zeros(parameters, np.uint8))

    def classes(self, header: Payload, piece: Piece) -> Bytes:
        """Return the class of each value of a piece."""
        found = np.empty(piece.values, np.uint8)
        kernels.past_classes(self.noted[header.place(piece)], found)
        return found

    def remember_nothing(self, header: Payload) -> None:
        """Note, when a difference is whole, the tensors that had no steps in it.

        One that had nothing at all makes no other model, and leaves no trace.
        """
        if header.code_bytes == 0:
            return
        for code, part in zip(header.codes, header.spec.slices, strict=True):
            if not code.step:
                kernels.remember(self.noted[part], np.empty(0, np.uint8), 0, 0)

    def packed(self, part: slice) -> bytes:
        """Return a part of it as it travels and is stored; empty if there was nothing."""
        noted = self.noted[part]
        if not noted.any():
            return b""
        out = np.empty(packed_bytes(noted.size, _PAST_BITS), np.uint8)
        kernels.repack(noted, 8, _PAST_BITS, noted.size, out)
        return entropy.compress(out)

    def unpack(self, part: slice, data: bytes) -> None:
        """Take over what `packed` gave.

        Raises
        ------
        ValueError
            If it is nothing that `packed` gives for that part.
        """
        noted = self.noted[part]
        noted[:] = 0
        if data:
            expanded = entropy.expand(data, packed_bytes(noted.size, _PAST_BITS))
            kernels.repack(expanded, _PAST_BITS, 8, noted.size, noted)


def values_of(header: Payload, pieces: Iterable[Piece]) -> slice:
    """Return where the values of a chunk lie in the flat array of all tensors."""
    places = [header.place(piece) for piece in pieces]
    return slice(places[0].start, places[-1].stop) if places else slice(0, 0)


def is_worth_it(codes: Bytes, zero: int) -> bool:
    """Tell whether codes, a byte each, are mostly 0, by a sample of them."""
    counts = kernels.histogram(codes, codes.size // entropy.SAMPLE | 1)
    return bool(counts[zero] >= LEAST_ZEROS * counts.sum())


def compress(codes: Bytes, zero: int, bits: int, classes: Bytes) -> bytes:
    """Code codes, a byte each, by their classes; empty if that is no shorter than packed ones."""
    out = np.empty(max(quantizer.packed_bytes(codes.size, bits) - 1, 0), np.uint8)
    length = kernels.encode_given(codes, classes, zero, out)
    return b"" if length is None else bytes((GIVEN,)) + out[:length].tobytes()


def expand(coded: bytes | memoryview, zero: int, bits: int, classes: Bytes) -> Bytes:
    """Return codes, a byte each: `compress` backwards.

    Raises
    ------
    ValueError
        If `coded` is not what that many codes are coded to.
    """
    codes = np.empty(classes.size, np.uint8)
    try:
        kernels.decode_given(np.frombuffer(coded, np.uint8)[1:], classes, zero, bits, codes)
    except ValueError:
        raise ValueError(f"coded block: not of {codes.size} codes of {bits} bits") from None
    return codes
