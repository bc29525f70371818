"""Who holds which training examples when one data set is shared out on one machine.

Every client computes the same partition from the seed and keeps its own part of it, so
every example belongs to exactly one client.
"""

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.quantizer import derive_seed
from fedaq.errors import UserError
from fedaq.settings import PartitionSettings
from fedaq.tasks.examples import LABELS

# What a Dirichlet partition leaves to the poorest client where there are that many to give;
# the usual figure (NIID-Bench, arXiv 2102.02079, draws again until it holds).
LEAST_EXAMPLES = 10

Integers = NDArray[np.int64]


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


def owners_of(data: Sized, clients: int, how: PartitionSettings, seed: int) -> Integers:
    """Return the client (from 0) that holds each example, shape (len(data),).

    Raises
    ------
    UserError
        If there are too few examples, or the kind needs labels and `data` has none.
    """
    rng = np.random.default_rng(derive_seed(seed, "partition"))
    shards = how.shards_per_client if how.kind == "shards" else 1
    if clients * shards > len(data):
        raise UserError(
            f"{len(data)} examples cannot be shared among {clients} clients"
            + (f" with {shards} shards each" if shards > 1 else "")
        )
    match how.kind:
        case "iid":
            return iid_owners(len(data), clients, rng)
        case "shards":
            return shard_owners(labels_of(data), clients, shards, rng)
        case "dirichlet":
            return dirichlet_owners(labels_of(data), clients, how.alpha, rng)


def labels_of(data: Sized) -> Integers:
    """Return the class labels of a data set: its `targets`, as torchvision names them, or a column.

    Raises
    ------
    UserError
        If it has none, or not one whole number per example.
    """
    targets = getattr(data, "targets", None)
    columns = getattr(data, "column_names", ())  # of Hugging Face
    if targets is None and isinstance(columns, list):
        named = next((name for name in LABELS if name in columns), None)
        targets = None if named is None else cast(Any, data)[named]
    labels = np.asarray([] if targets is None else targets)
    if labels.shape != (len(data),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            "partition.kind shards or dirichlet needs class labels: the task's training data, a "
            f"{type(data).__name__}, must have an attribute targets with one integer per example"
        )
    return labels.astype(np.int64)


def iid_owners(examples: int, clients: int, rng: np.random.Generator) -> Integers:
    """Deal the examples at random into parts whose sizes differ by one at most."""
    owners = np.empty(examples, np.int64)
    owners[rng.permutation(examples)] = _even_runs(examples, clients)
    return owners


def shard_owners(
    labels: Integers, clients: int, shards_per_client: int, rng: np.random.Generator
) -> Integers:
    """Sort by label, cut into equal shards, and deal each client as many of them.

    McMahan et al., arXiv 1602.05629, section 3: two shards leave most clients with
    two classes. Equal labels are in random order before they are cut.
    """
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    shard_owner = rng.permutation(np.repeat(np.arange(clients), shards_per_client))
    owners = np.empty(len(labels), np.int64)
    owners[by_label] = shard_owner[_even_runs(len(labels), len(shard_owner))]
    return owners


def dirichlet_owners(
    labels: Integers, clients: int, alpha: float, rng: np.random.Generator
) -> Integers:
    """Share out every class in proportions drawn from ``Dirichlet(alpha, ..., alpha)``.

    Yurochkin et al., arXiv 1905.12022. A small `alpha` gives each client
    few classes and clients of unequal size; a large one comes near IID. Clients left
    with fewer than `LEAST_EXAMPLES` are filled up from the largest ones.
    """
    owners = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        counts = rng.multinomial(len(members), rng.dirichlet(np.full(clients, alpha)))
        owners[members] = np.repeat(np.arange(clients), counts)
    return _with_least(owners, clients, min(LEAST_EXAMPLES, len(labels) // clients), rng)


def _even_runs(examples: int, parts: int) -> Integers:
    """Return ``0 ... 0 1 ... 1 ...``, as even as it goes, the longer runs first."""
    sizes = examples // parts + (np.arange(parts) < examples % parts)
    return np.repeat(np.arange(parts), sizes)


def _with_least(owners: Integers, clients: int, least: int, rng: np.random.Generator) -> Integers:
    """Hand random examples of the largest clients to those that have fewer than `least`."""
    sizes = np.bincount(owners, minlength=clients)
    missing = np.maximum(least - sizes, 0)
    shuffled = rng.permutation(len(owners))
    grouped = shuffled[np.argsort(owners[shuffled], kind="stable")]
    rank = np.arange(len(owners)) - (np.cumsum(sizes) - sizes)[owners[grouped]]
    # The example at rank r is its owner's r-th, so the highest ranks level the largest
    # clients down, and no rank below `least` is reached before everyone has that many.
    given = grouped[np.argsort(-rank, kind="stable")][: missing.sum()]
    filled = owners.copy()
    filled[given] = np.repeat(np.arange(clients), missing)
    return filled
