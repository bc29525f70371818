"""Partitions against what their definitions say of sizes, classes and proportions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from fedaq.errors import UserError
from fedaq.settings import PartitionSettings, load_settings
from fedaq.tasks import Examples
from fedaq.tasks.partition import (
    LEAST_EXAMPLES,
    WHOLE,
    Partition,
    dirichlet_owners,
    labels_of,
    owners_of,
    parse_partition,
    shard_owners,
)
from fedaq_client.sharing import local_data

Labels = NDArray[np.int64]
Kind = Literal["iid", "shards", "dirichlet"]
# Data, the number of clients, and how it is shared out among them.
Case = tuple[Examples, int, PartitionSettings]

KINDS = st.builds(
    PartitionSettings,
    kind=st.sampled_from(["iid", "shards", "dirichlet"]),
    alpha=st.floats(1e-3, 1e3),
    shards_per_client=st.integers(1, 4),
)


def examples(labels: Sequence[int] | Labels) -> Examples:
    return Examples(torch.arange(len(labels)), torch.as_tensor(labels, dtype=torch.int64))


@st.composite
def shared_out(draw: st.DrawFn) -> Case:
    how = draw(KINDS)
    clients = draw(st.integers(1, 12))
    count = draw(st.integers(clients * how.shards_per_client, 300))
    classes = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return examples(rng.integers(0, classes, count)), clients, how


@given(shared_out(), st.integers(0, 2**63 - 1))
def test_every_example_belongs_to_exactly_one_client(case: Case, seed: int) -> None:
    data, clients, how = case
    shares = [local_data(data, Partition(i, clients), how, seed) for i in range(clients)]
    parts = [share for share in shares if isinstance(share, Examples)]
    assert len(parts) == clients
    held = torch.cat([part.inputs for part in parts])
    assert sorted(held.tolist()) == list(range(len(data)))
    for part in parts:
        assert torch.equal(part.targets, data.targets[part.inputs])


@given(shared_out(), st.integers(0, 2**63 - 1))
def test_sizes(case: Case, seed: int) -> None:
    data, clients, how = case
    sizes = np.bincount(owners_of(data, clients, how, seed), minlength=clients)
    match how.kind:
        case "iid":
            assert sizes.max() - sizes.min() <= 1
        case "shards":
            assert sizes.max() - sizes.min() <= how.shards_per_client
        case "dirichlet":
            assert sizes.min() >= min(LEAST_EXAMPLES, len(data) // clients)


@pytest.mark.parametrize("kind", ["iid", "shards", "dirichlet"])
def test_the_seed_decides(kind: Kind) -> None:
    data = examples(np.arange(600) % 10)
    how = PartitionSettings(kind=kind)
    assert np.array_equal(owners_of(data, 6, how, 5), owners_of(data, 6, how, 5))
    assert not np.array_equal(owners_of(data, 6, how, 5), owners_of(data, 6, how, 6))


def test_shards_are_runs_of_the_sorted_labels() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 7, 1000)
    owners = shard_owners(labels, 10, 3, rng)
    shards = Counter(tuple(shard) for shard in np.array_split(np.sort(labels), 30))
    for client in range(10):
        mine = Counter(labels[owners == client].tolist())
        assert _is_union(mine, shards, 3), "not three whole shards"


def _is_union(labels: Counter[int], shards: Counter[tuple[int, ...]], count: int) -> bool:
    if count == 0:
        return labels.total() == 0
    return any(
        not Counter(shard) - labels and _is_union(labels - Counter(shard), shards, count - 1)
        for shard in shards
    )


def test_two_shards_leave_two_classes() -> None:
    labels = np.repeat(np.arange(10), 60)
    owners = shard_owners(labels, 10, 2, np.random.default_rng(0))
    for client in range(10):
        assert len(set(labels[owners == client])) <= 2
        assert (owners == client).sum() == 60


@pytest.mark.parametrize("alpha", [0.1, 1.0, 100.0])
def test_dirichlet_shares_have_the_moments_of_the_distribution(alpha: float) -> None:
    clients, classes, members = 5, 2000, 200
    labels = np.repeat(np.arange(classes), members)
    owners = dirichlet_owners(labels, clients, alpha, np.random.default_rng(7))
    counts = np.bincount(labels * clients + owners, minlength=classes * clients)
    share = counts / members
    # Variance of a Dirichlet-multinomial share with n = members and a0 = clients * alpha.
    mean, a0 = 1 / clients, clients * alpha
    variance = mean * (1 - mean) * (members + a0) / (members * (1 + a0))
    assert share.reshape(classes, clients).mean(axis=0) == pytest.approx(mean, rel=0.1)
    assert share.var() == pytest.approx(variance, rel=0.1)


def test_the_poorest_client_is_filled_up_from_the_richest() -> None:
    labels = np.zeros(1000, np.int64)
    owners = dirichlet_owners(labels, 50, 1e-3, np.random.default_rng(1))
    sizes = np.sort(np.bincount(owners, minlength=50))
    # With alpha this small one client draws everything, and keeps what nobody lacks.
    assert sizes.tolist() == [LEAST_EXAMPLES] * 49 + [1000 - 49 * LEAST_EXAMPLES]


def test_iid_needs_no_labels_and_the_others_say_what_is_missing() -> None:
    data = TensorDataset(torch.zeros(20, 3))
    assert len(owners_of(data, 4, PartitionSettings(), 1)) == 20
    with pytest.raises(UserError, match="TensorDataset, must have an attribute targets"):
        owners_of(data, 4, PartitionSettings(kind="shards"), 1)


@pytest.mark.parametrize("targets", [[0.5] * 20, [0] * 19, np.zeros((20, 2), int)])
def test_labels_are_one_integer_per_example(targets: Any) -> None:
    data: Any = TensorDataset(torch.zeros(20, 3))
    data.targets = targets
    with pytest.raises(UserError, match="one integer per example"):
        labels_of(data)


def test_labels_may_be_a_list() -> None:
    data: Any = TensorDataset(torch.zeros(3, 3))
    data.targets = [2, 0, 1]
    assert labels_of(data).tolist() == [2, 0, 1]


def test_a_client_without_a_partition_keeps_everything() -> None:
    data = examples([0, 1, 2])
    assert local_data(data, WHOLE, PartitionSettings(kind="dirichlet"), 1) is data


def test_too_few_examples() -> None:
    data = examples([0, 1, 2, 3])
    with pytest.raises(UserError, match=r"4 examples cannot be shared among 5 clients$"):
        owners_of(data, 5, PartitionSettings(), 1)
    with pytest.raises(UserError, match="among 2 clients with 3 shards each"):
        owners_of(data, 2, PartitionSettings(kind="shards", shards_per_client=3), 1)
    with pytest.raises(UserError, match="empty"):
        local_data(examples([]), WHOLE, PartitionSettings(), 1)


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "a/b", "1/3/5", "-1/3"])
def test_a_malformed_partition_is_explained(text: str) -> None:
    with pytest.raises(UserError, match="2/5"):
        parse_partition(text)


def test_a_partition_is_read_from_one() -> None:
    assert parse_partition("2/5") == Partition(1, 5)


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("partition.kind=dirichet", "'iid', 'shards' or 'dirichlet'"),
        ("partition.alpha=0", "partition.alpha"),
        ("partition.shards_per_client=0", "partition.shards_per_client"),
    ],
)
def test_settings_out_of_range(assignment: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        load_settings(environment={}, assignments=[assignment])
