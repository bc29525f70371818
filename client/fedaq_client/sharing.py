"""Which examples of a data set are a client's, and which of them it holds back."""

from collections.abc import Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.quantizer import derive_seed
from fedaq.errors import UserError
from fedaq.settings import PartitionSettings, Settings
from fedaq.tasks import Task, subset
from fedaq.tasks.partition import WHOLE, Partition, owners_of


@dataclass(frozen=True)
class Share:
    """The places of a client's examples in the data set; None stands for all of them.

    Attributes
    ----------
    trained : int64, shape (examples,), optional
    held_back : int64, optional
        None for none.
    """

    trained: NDArray[np.int64] | None
    held_back: NDArray[np.int64] | None = None


def shares_of(task: Task, everything: Sized, settings: Settings) -> list[Share]:
    """Return what each client of a run has of the examples of one machine.

    Raises
    ------
    UserError
        If there are no examples, or they cannot be shared out like that.
    """
    if len(everything) == 0:
        raise UserError("the task's training data is empty")
    clients, share, seed = settings.clients, task.validation_share, settings.seed
    if clients == 1 and round(share * len(everything)) == 0:
        return [Share(None)]
    owners = owners_of(everything, clients, settings.partition, seed)
    ends = np.cumsum(np.bincount(owners, minlength=clients))[:-1]
    parts = np.split(np.argsort(owners, kind="stable"), ends)
    return [Share(*_divided(mine, share, seed)) for mine in parts]


def _divided(
    mine: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Return a client's places that it trains with, and those it holds back, as `divided` does."""
    count = round(share * len(mine))
    if count == 0:
        return mine, None
    order = np.random.default_rng(derive_seed(seed, "validation")).permutation(len(mine))
    # In the order of the data set, which may lie on a disk.
    return mine[np.sort(order[count:])], mine[np.sort(order[:count])]


def local_data(everything: Sized, partition: Partition, how: PartitionSettings, seed: int) -> Sized:
    """Return the client's examples: all of the data set, or its part of it.

    Raises
    ------
    UserError
        If there are none, or the data set cannot be shared out like that.
    """
    if len(everything) == 0:
        raise UserError("the task's training data is empty")
    if partition == WHOLE:
        return everything
    owners = owners_of(everything, partition.parts, how, seed)
    return subset(everything, np.flatnonzero(owners == partition.index))


def divided(data: Sized, share: float, seed: int) -> tuple[Sized, Sized | None]:
    """Return a client's examples to train with, and those to hold back: `share` of them.

    Nothing is held back where that would be less than half an example.

    Raises
    ------
    UserError
        If the data set cannot be divided like that.
    """
    trained, held_back = _divided(np.arange(len(data)), share, seed)
    if held_back is None:
        return data, None
    return subset(data, trained), subset(data, held_back)
