"""The values of an update that are sent: of all clients of a round the same, drawn at random.

Masked codes cannot be entropy-coded, so every value that is sent takes its bits. One value in
`one_in` is sent, that many times as large: then the mean of what arrives is, over the draws, that
of the whole updates. Both ends draw from the seed of the run, and nothing of it travels.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.model import Kind, ModelSpec
from fedaq.codec.quantizer import Floats, derive_key

# At the most, one value in so many.
LARGEST_ONE_IN = 2**16
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Subset:
    """What is sent of a round's updates.

    Attributes
    ----------
    spec : ModelSpec
    seed, round : int
        Of the run, and from 1.
    one_in : int
        1 for every value.
    """

    spec: ModelSpec
    seed: int
    round: int
    one_in: int = 1

    @cached_property
    def places(self) -> tuple[Places | None, ...]:
        """Where the values lie that are sent, of each tensor and rising; None for all of it.

        Of statistics and the like, all are.
        """
        return _places(self)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many values of each tensor are sent."""
        return tuple(
            elements if places is None else len(places)
            for elements, places in zip(self.spec.elements, self.places, strict=True)
        )

    def leave(self, values: Floats) -> None:
        """Leave in an update what is sent of it, and 0 elsewhere.

        Parameters
        ----------
        values : float32, shape (parameters,)
        """
        for part, places in zip(self.spec.slices, self.places, strict=True):
            if places is not None:
                kept = values[part][places] * np.float32(self.one_in)
                values[part] = 0
                values[part][places] = kept


# A server plans with it and adds up by it, and clients of one process send by it: drawn once.
@lru_cache(maxsize=1)
def _places(subset: Subset) -> tuple[Places | None, ...]:
    tensors = zip(subset.spec.tensors, subset.spec.elements, strict=True)
    return tuple(
        _drawn(subset, number, elements)
        if subset.one_in > 1 and tensor.kind == Kind.CODED
        else None
        for number, (tensor, elements) in enumerate(tensors)
    )


def _drawn(subset: Subset, tensor: int, elements: int) -> Places:
    """Return the places whose 32 bits of the stream are below the share of all that is due.

    The stream is that of Philox 4x64-10, of which each word is two, the lower half first.
    """
    key = derive_key(subset.seed, "subset", subset.round, tensor)
    stream = np.random.Philox(key=key.number).random_raw((elements + 1) // 2)
    words = stream.astype("<u8", copy=False).view("<u4")[:elements]
    return np.flatnonzero(words < 2**32 // subset.one_in)
