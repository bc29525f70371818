"""Masks: streams of uniform words from 32 secret bytes, added or taken off block by block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from fedaq.privacy.layout import BLOCK, Words

SEED_BYTES = 32
_NONCE = bytes(16)
_ZEROS = memoryview(bytes(8 * BLOCK))


@dataclass(frozen=True)
class Mask:
    """One mask: its seed, and whether it is added or taken off.

    Attributes
    ----------
    seed : bytes
        `SEED_BYTES`, of no other use.
    sign : int
        1 or -1.
    """

    seed: bytes
    sign: int


class Masks:
    """Masks that are applied to all values of a layout, once and in their order.

    Parameters
    ----------
    masks : sequence of Mask
    """

    def __init__(self, masks: Sequence[Mask]) -> None:
        self._streams = [(_stream(mask.seed), mask.sign) for mask in masks]
        self._room = memoryview(bytearray(8 * BLOCK))
        self._bytes = np.frombuffer(self._room, np.uint8)

    def apply(self, words: Words, kind: np.dtype[Any] | None = None) -> None:
        """Add the next words of every stream to the next block.

        Parameters
        ----------
        words : integers, shape (values,)
            `BLOCK` values at the most; they wrap around.
        kind : dtype, optional
            Of the words of the segment, if those are narrower than `words`.
        """
        kind = kind or words.dtype
        size = kind.itemsize * words.size
        drawn = self._room[:size]
        # A mixture of signed and unsigned words of 64 bits would be floats to NumPy.
        same_size = kind.itemsize == words.dtype.itemsize
        mask = self._bytes[:size].view(words.dtype if same_size else kind)
        for stream, sign in self._streams:
            stream.update_into(_ZEROS[:size], drawn)
            if sign > 0:
                np.add(words, mask, out=words, casting="unsafe")
            else:
                np.subtract(words, mask, out=words, casting="unsafe")


def _stream(seed: bytes) -> CipherContext:
    # The key is of one use, so the nonce need not differ.
    return Cipher(ChaCha20(seed, _NONCE), mode=None).encryptor()
