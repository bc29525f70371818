"""A client's update, made no longer than it may be: before it is rounded, and after."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from fedaq.codec import kernels, quantizer
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Key
from fedaq.privacy.clipping import SHORTER

# Values that are rounded at once, to see what that makes of them; a multiple of 8.
BLOCK = 2**16


def clip(values: Floats, norm: float) -> bool:
    """Shorten an update, in place, to an L2 norm; tell whether it was no longer than that."""
    own = sqrt(kernels.statistics(values).squares) if values.size else 0.0
    if own <= norm:
        return True
    values *= np.float32(norm / own)
    return False


def shorten(values: Floats, update: Payload, keys: Sequence[Key], rounded: float) -> None:
    """Shorten an update, in place, until its codes are no longer than this, in steps.

    Parameters
    ----------
    values : float32, shape (parameters,)
    update : Payload
        How it is coded: all tensors in the same steps.
    keys : sequence of Key
        Random stream of each tensor.
    rounded : float
    """
    while rounded_squares(values, update, keys) > rounded**2:
        values *= np.float32(SHORTER)


def rounded_squares(values: Floats, update: Payload, keys: Sequence[Key]) -> int:
    """Return the sum of the squares of an update's codes, in steps."""
    total = 0
    for code, part, key in zip(update.codes, update.spec.slices, keys, strict=True):
        if code.grid is None:
            continue
        for first in range(0, part.stop - part.start, BLOCK):
            block = values[part.start + first : min(part.start + first + BLOCK, part.stop)]
            out = np.empty(2 * block.size, np.uint8)
            quantizer.quantize(block, code.grid, key, first=first, out=out, width=16)
            steps = out.view("<u2").astype(np.int64) - code.zero
            total += int(np.dot(steps, steps))
    return total
