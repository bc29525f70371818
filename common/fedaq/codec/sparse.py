"""The largest values of every tensor, and what is left of it when they are sent.

Top-k sparsification, and the sparse ternary compression of Sattler et al. (arXiv 1903.02891,
algorithm 1): of each tensor the largest values by their magnitude are kept, as they are or,
ternary, as the mean of their magnitudes with their signs. The rest is 0, and is left for the next
transfer (error feedback). What is kept is then coded like any other tensor, around zero and rounded
to the nearest code, so that the codes of ternary values are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from fedaq.codec import quantizer
from fedaq.codec.model import Kind, ModelSpec
from fedaq.codec.payload import ZERO, Payload
from fedaq.codec.quantizer import Floats, Key

# Nothing is drawn where codes are the nearest.
_NO_KEY = Key(0, 0)


@dataclass(frozen=True)
class Sparsity:
    """What is kept of a tensor.

    Attributes
    ----------
    keep : float
        Share of the values, above 0 and at most 1; of each tensor at least one is kept.
    ternary : bool
        Whether they become the mean of their magnitudes, with their signs.
    """

    keep: float
    ternary: bool

    def kept(self, values: Floats) -> Floats:
        """Return the values that are kept, at their places, and 0 elsewhere.

        Of equal magnitudes the first are kept.

        Parameters
        ----------
        values : float32, shape (n,)
            Finite.
        """
        out = np.zeros_like(values)
        places = _largest(values, ceil(self.keep * values.size))
        chosen = values[places]
        if self.ternary:
            chosen = np.sign(chosen) * np.float32(quantizer.tensor_spread(chosen).magnitude)
        out[places] = chosen
        return out

    def kept_of(self, spec: ModelSpec, values_at: Callable[[slice], Floats]) -> Floats:
        """Return what is kept of every tensor, flat; of statistics and the like, everything.

        Parameters
        ----------
        values_at : callable
            Returns the float32 values at the slice of a tensor.
        """
        out = np.empty(spec.parameters, np.float32)
        for tensor, part in zip(spec.tensors, spec.slices, strict=True):
            values = values_at(part)
            out[part] = self.kept(values) if tensor.kind == Kind.CODED else values
        return out


def lost(update: Payload, sent: Floats, wanted: Floats) -> dict[int, Floats]:
    """Return, by the tensor, what is left of an update when its codes have arrived.

    Parameters
    ----------
    update : Payload
        How it is coded.
    sent : float32, shape (parameters,)
        What is coded, to the nearest codes.
    wanted : float32, shape (parameters,)
        What would be sent if nothing were left out.

    Returns
    -------
    dict of int to float32 arrays
        Of statistics and the like nothing is left.
    """
    left = {}
    for tensor, part in enumerate(update.spec.slices):
        if update.spec.tensors[tensor].kind == Kind.CODED:
            left[tensor] = wanted[part] - _arriving(update, tensor, sent[part])
    return left


def _largest(values: Floats, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return where the largest magnitudes lie, in their order in the tensor."""
    if count >= values.size:
        return np.arange(values.size)
    sizes = np.abs(values)
    least = np.partition(sizes, values.size - count)[values.size - count]
    above = np.flatnonzero(sizes > least)
    equal = np.flatnonzero(sizes == least)[: count - above.size]
    return np.sort(np.concatenate((above, equal)))


def _arriving(update: Payload, tensor: int, values: Floats) -> Floats:
    """Return what the codes of a tensor stand for."""
    code, out = update.codes[tensor], np.zeros_like(values)
    if code.grid is None:
        return out if code == ZERO else values
    codes = np.empty(quantizer.packed_bytes(values.size, code.bits), np.uint8)
    quantizer.quantize(values, code.grid, _NO_KEY, first=0, out=codes, nearest=True)
    quantizer.dequantize(codes, code.grid, out)
    return out
