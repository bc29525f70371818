"""Who shares masks with whom."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaq.privacy.neighbours import FEWEST, MOST_COMPLETE, circle_of, neighbours


@pytest.mark.parametrize("clients", [3, 4, 7, 12, 30, MOST_COMPLETE])
def test_few_clients_all_share_and_a_third_may_drop_out(clients: int) -> None:
    circle = circle_of(clients)
    assert circle.degree == clients - 1
    assert circle.threshold == clients - clients // 3
    assert 2 * circle.threshold > clients


@pytest.mark.parametrize("clients", [51, 80, 200, 1000])
def test_many_clients_have_few_neighbours(clients: int) -> None:
    circle = circle_of(clients)
    assert circle.degree < clients - 1
    assert 2 * circle.threshold > circle.degree + 1
    # Two thirds of the neighbours stay on average.
    assert circle.threshold < circle.degree * 2 / 3


def test_the_number_of_neighbours_hardly_grows() -> None:
    assert circle_of(5000).degree < 2 * circle_of(500).degree


@settings(max_examples=50, deadline=None)
@given(
    members=st.sets(st.integers(1, 10_000), min_size=3, max_size=90),
    half=st.integers(1, 60),
    salt=st.binary(max_size=8),
)
def test_everybody_has_as_many_and_whoever_has_one_is_had(
    members: set[int], half: int, salt: bytes
) -> None:
    circle = neighbours(members, 2 * half, salt)
    assert all(one in circle[other] for one, others in circle.items() for other in others)
    due = min(2 * half, len(members) - 1)
    assert all(len(set(others)) == len(others) == due for others in circle.values())
    assert all(one not in others for one, others in circle.items())
    assert circle == neighbours(sorted(members, reverse=True), 2 * half, salt)


def test_another_round_has_another_circle() -> None:
    members = range(1, 101)
    first, second = (neighbours(members, 20, salt) for salt in (b"run 1", b"run 2"))
    assert first != second


def test_what_is_left_of_a_circle_hangs_together() -> None:
    """Without any third of the clients in a row, everybody is reached from everybody."""
    circle = neighbours(range(1, 61), circle_of(60).degree, b"")
    for lost in (set(range(1, 21)), set(range(21, 41)), set(range(1, 61, 3))):
        left = set(circle) - lost
        reached, at = set(), [min(left)]
        while at:
            one = at.pop()
            if one not in reached:
                reached.add(one)
                at += [other for other in circle[one] if other in left]
        assert reached == left


def test_two_clients_do_not_hide_each_other() -> None:
    assert FEWEST == 3
    with pytest.raises(ValueError, match="2 clients"):
        circle_of(2)


def test_no_two_sets_of_holders_are_apart() -> None:
    """Whoever is asked for one secret and whoever for the other have one in common."""
    circle = circle_of(6)
    for one, other in combinations(combinations(range(6), circle.threshold), 2):
        assert set(one) & set(other)
