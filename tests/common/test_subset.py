"""The values that are sent: the same at both ends, and on the mean those of the whole update."""

import numpy as np
import pytest

from fedaq.codec.model import Kind, ModelSpec, TensorSpec
from fedaq.codec.subset import Subset

SPEC = ModelSpec((TensorSpec("weight", (40,)), TensorSpec("bias", (9,))))


def places(subset: Subset) -> list[list[int] | None]:
    return [None if each is None else each.tolist() for each in subset.places]


def test_what_is_drawn_stays_as_it_is() -> None:
    """Ends of two versions, with two versions of NumPy, draw the same."""
    assert places(Subset(SPEC, 7, 3, 4)) == [[2, 7, 9, 11, 15, 20, 21, 27, 29, 34, 36, 39], [1]]


def test_what_is_drawn_follows_from_the_seed_the_round_and_the_share() -> None:
    large = ModelSpec((TensorSpec("weight", (4000,)), TensorSpec("other", (4000,))))
    usual = places(Subset(large, 7, 3, 4))
    assert places(Subset(large, 7, 3, 4)) == usual
    assert usual[0] != usual[1]
    others = (Subset(large, 8, 3, 4), Subset(large, 7, 4, 4), Subset(large, 7, 3, 5))
    assert all(places(other) != usual for other in others)


def test_one_in_one_is_everything() -> None:
    subset = Subset(SPEC, 7, 3)
    assert subset.places == (None, None)
    assert subset.counts == (40, 9)
    values = np.arange(49, dtype=np.float32)
    subset.leave(values)
    assert np.array_equal(values, np.arange(49))


@pytest.mark.parametrize("kind", [Kind.STATISTICS, Kind.SERVER])
def test_what_is_not_trained_is_sent_whole(kind: Kind) -> None:
    spec = ModelSpec((TensorSpec("weight", (40,)), TensorSpec("mean", (9,), kind)))
    subset = Subset(spec, 7, 3, 4)
    assert subset.places[1] is None
    assert subset.counts[1] == 9
    values = np.ones(49, np.float32)
    subset.leave(values)
    assert np.array_equal(values[40:], np.ones(9))


def test_what_is_left_is_there_and_as_many_times_as_large() -> None:
    subset = Subset(SPEC, 7, 3, 4)
    values = np.arange(1, 50, dtype=np.float32)
    subset.leave(values)
    kept = {int(at) for at in np.flatnonzero(values)}
    [weight, bias] = subset.places
    assert weight is not None
    assert bias is not None
    assert kept == {*weight.tolist(), *(bias + 40).tolist()}
    assert all(values[at] == 4 * (at + 1) for at in kept)
    assert subset.counts == (len(weight), len(bias))


@pytest.mark.parametrize("one_in", [2, 3, 12])
def test_the_mean_over_rounds_is_the_whole_update(one_in: int) -> None:
    spec = ModelSpec((TensorSpec("weight", (500,)),))
    rounds = 4000
    total = np.zeros(500)
    for number in range(1, rounds + 1):
        values = np.ones(500, np.float32)
        Subset(spec, 1, number, one_in).leave(values)
        total += values
    deviation = ((one_in - 1) / rounds) ** 0.5
    # Of each value and of all together: five of its standard deviations, as rare as one in a
    # million.
    assert np.abs(total / rounds - 1).max() < 5 * deviation
    assert abs(total.mean() / rounds - 1) < 5 * deviation / 500**0.5
