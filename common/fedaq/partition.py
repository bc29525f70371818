"""Who holds which training examples when one data set is shared out on one machine."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedaq.errors import UserError
from fedaq.quantizer import derive_seed


@dataclass(frozen=True)
class Partition:
    """Part `index` (from 0) of `parts`; the whole data set is part 0 of 1."""

    index: int
    parts: int


WHOLE = Partition(0, 1)


def parse_partition(text: str) -> Partition:
    """Read ``2/5``, the second of five parts.

    Raises
    ------
    UserError
        If the text is not of that form.
    """
    number, slash, parts = text.partition("/")
    if slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts):
        return Partition(int(number) - 1, int(parts))
    raise UserError(f"--partition {text}: write it as 2/5 for the second of five parts")


def iid_indices(examples: int, partition: Partition, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of one part of a random, even split."""
    if partition.parts > examples:
        raise UserError(f"{examples} examples cannot be shared among {partition.parts} clients")
    order = np.random.default_rng(derive_seed(seed, "partition")).permutation(examples)
    return np.sort(np.array_split(order, partition.parts)[partition.index])
