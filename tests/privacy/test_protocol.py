"""The sum of masked updates is that of the updates, whoever drops out where, up to a third."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaq.codec.common_grid import sum_bits
from fedaq.privacy.layout import WIDEST_CODES, Layout, Words, layout_of
from fedaq.privacy.member import MaskingError, Member, Peer
from fedaq.privacy.neighbours import Circle
from fedaq.privacy.unmasking import UnfitSharesError
from privacy.rounds import Played, begun, deliver, reveal, send, summed

ELEMENTS = (21, 1, 40)


def _words(
    layout: Layout, weights: list[int], code_bits: int, rng: np.random.Generator, *, top: bool
) -> tuple[dict[int, list[Words]], list[list[Words]]]:
    """Weighted codes and figures of every client, at random or at the bounds, and in wide words."""
    codes: dict[int, list[Words]] = {}
    exact: list[list[Words]] = []
    largest = 2**code_bits - 1
    for number, weight in enumerate(weights, 1):
        words: list[Words] = []
        for segment in layout.segments[:-1]:
            drawn = np.full(segment.values, largest, np.uint64)
            if not top:
                drawn = rng.integers(0, largest, segment.values, np.uint64, endpoint=True)
            words.append((weight * drawn).astype(segment.dtype))
        figures = rng.integers(-(2**40), 2**40, layout.segments[-1].values, np.int64)
        words.append((weight * figures).view(np.uint64))
        codes[number] = words
        exact.append([each.astype(object) for each in words[:-1]] + [weight * figures])
    return codes, exact


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_sum_is_exact_up_to_the_bounds_whoever_drops_out(data: st.DataObject) -> None:
    clients = data.draw(st.integers(3, 9))
    weights = data.draw(st.lists(st.integers(1, 15), min_size=clients, max_size=clients))
    code_bits = data.draw(st.integers(1, 16))
    width = sum_bits(2**code_bits - 1, sum(weights))
    assert width <= WIDEST_CODES
    layout = layout_of(ELEMENTS, (width,) * 3)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    codes, exact = _words(layout, weights, code_bits, rng, top=data.draw(st.booleans()))
    lost = data.draw(st.permutations(range(1, clients + 1)))[: clients // 3]
    steps = [data.draw(st.sampled_from(("shared", "masked", "revealed"))) for _ in lost]
    played = begun(clients)
    at = {number: set(range(1, clients + 1)) for number in ("shared", "masked", "revealed")}
    for number, step in zip(lost, steps, strict=True):
        for later in list(at)[list(at).index(step) :]:
            at[later].discard(number)
    deliver(played, at["shared"])
    send(played, layout, {one: codes[one] for one in at["masked"]}, at["shared"])
    reveal(played, at["shared"], at["revealed"])
    total = summed(played, layout, at["shared"])
    for part, found in enumerate(total.totals):
        due = sum(exact[one - 1][part] for one in at["masked"])
        assert np.array_equal(found.astype(object), due)


@pytest.mark.parametrize("code_bits", [1, 4, 16])
@pytest.mark.parametrize("total_weight", [1, 3, 15 * 200])
def test_the_width_is_the_least_that_holds_every_sum(code_bits: int, total_weight: int) -> None:
    largest = (2**code_bits - 1) * total_weight
    width = sum_bits(2**code_bits - 1, total_weight)
    assert 2 ** (width - 1) <= largest < 2**width


def _round(clients: int, plan: Circle | None = None) -> tuple[Played, Layout, list[list[Words]]]:
    layout = layout_of(ELEMENTS, (9, 9, 9))
    rng = np.random.default_rng(1)
    played = begun(clients, plan)
    deliver(played, played.members)
    codes, exact = _words(layout, [1] * clients, 4, rng, top=False)
    send(played, layout, codes, played.members)
    return played, layout, exact


def test_a_circle_of_neighbours_sums_as_well() -> None:
    played, layout, exact = _round(60, Circle(8, 5))
    del played.masked[7], played.masked[33]
    reveal(played, played.members, set(played.masked) - {12})
    total = summed(played, layout, played.members)
    due = sum(exact[one - 1][0] for one in played.masked)
    assert np.array_equal(total.totals[0].astype(object), due)


def test_a_wrong_share_is_found_and_its_holder_named() -> None:
    played, layout, exact = _round(6)
    reveal(played, played.members, played.members)
    for whose, share in played.revealed[2].items():
        played.revealed[2][whose] = bytes(17) if whose % 2 else share[::-1]
    total = summed(played, layout, played.members)
    assert played.left is not None
    assert played.left.liars == {2}
    due = sum(each[0] for each in exact)
    assert np.array_equal(total.totals[0].astype(object), due)


def test_as_many_wrong_shares_as_can_be_spared_are_found_wherever_they_are() -> None:
    played, layout, exact = _round(10)
    reveal(played, played.members, played.members)
    liars = {1, 5, 9}
    for liar in liars:
        played.revealed[liar] = {whose: bytes([liar]) * 16 for whose in played.members}
        played.revealed[liar] = {
            whose: b"\0" + share for whose, share in played.revealed[liar].items()
        }
    total = summed(played, layout, played.members)
    assert played.left is not None
    assert played.left.liars == liars
    assert np.array_equal(total.totals[0].astype(object), sum(each[0] for each in exact))


def test_too_few_shares_leave_no_sum() -> None:
    played, layout, _ = _round(6)
    reveal(played, played.members, (1, 2, 3))
    with pytest.raises(UnfitSharesError, match="client 1") as error:
        summed(played, layout, played.members)
    assert not error.value.dealt


@pytest.mark.parametrize(("clients", "spared"), [(6, True), (6, False), (49, True)])
def test_who_deals_shares_that_do_not_belong_together_is_named(clients: int, spared: bool) -> None:
    played, layout, _ = _round(clients)
    answering = clients if spared else clients - clients // 3
    reveal(played, played.members, range(1, answering + 1))
    for holder, shares in played.revealed.items():
        shares[2] = b"\0" + bytes([holder]) * 16
    with pytest.raises(UnfitSharesError, match="client 2") as error:
        summed(played, layout, played.members)
    # With none to spare it may be a holder who lies.
    assert error.value.dealt == spared


def test_shares_for_another_do_not_fit() -> None:
    played = begun(4)
    first, second = played.sealed[1][2], played.sealed[1][3]
    assert played.members[2].receive({1: second, 3: played.sealed[3][2]}) == {1}
    assert played.members[3].receive({1: first}) == {1}
    assert played.members[4].receive({1: b"", 2: played.sealed[2][4][:-1], 9: b"x"}) == {1, 2, 9}


def test_a_client_reveals_one_secret_of_each_and_once() -> None:
    played, _, _ = _round(6)
    one, *others = played.members.values()
    with pytest.raises(MaskingError, match="both secrets"):
        one.reveal({1, 2, 3, 4, 5, 6}, {6})
    with pytest.raises(MaskingError, match="both secrets"):
        one.reveal({1, 2, 3, 4}, {5})
    with pytest.raises(MaskingError, match="4 are needed"):
        one.reveal({1, 2, 3}, {4, 5, 6})
    with pytest.raises(MaskingError, match="this client's update does not count"):
        one.reveal({2, 3, 4, 5, 6}, {1})
    one.reveal({1, 2, 3, 4, 5}, {6})
    with pytest.raises(MaskingError, match="twice"):
        one.reveal({1, 2, 3, 4, 5}, {6})
    assert others[0].reveal({1, 2, 3, 4, 5, 6}, set())


def test_a_client_masks_once() -> None:
    played, _, _ = _round(4)
    with pytest.raises(MaskingError, match="second masked update"):
        played.members[1].masks(played.members)


def test_a_client_does_not_mask_among_too_few() -> None:
    played = begun(6)
    deliver(played, played.members)
    with pytest.raises(MaskingError, match="4 are needed"):
        played.members[1].masks((1, 2, 3))


def test_who_lacks_a_share_masks_and_reveals_without_it() -> None:
    """Client 1 could not open what client 2 sent; the shares of the others do."""
    layout = layout_of(ELEMENTS, (9, 9, 9))
    played = begun(4)
    for number in played.members:
        mine = {one: played.sealed[one][number] for one in played.circle[number]}
        if number == 1:
            mine[2] = mine[3]
        assert played.members[number].receive(mine) == ({2} if number == 1 else set())
    codes, exact = _words(layout, [1] * 4, 4, np.random.default_rng(2), top=False)
    send(played, layout, codes, played.members)
    reveal(played, played.members, played.members)
    assert 2 not in played.revealed[1]
    total = summed(played, layout, played.members)
    assert np.array_equal(total.totals[0].astype(object), sum(each[0] for each in exact))


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [(Circle(5, 3), "more than half"), (Circle(5, 7), "more than half")],
)
def test_thresholds_that_protect_nothing_are_refused(plan: Circle, sentence: str) -> None:
    with pytest.raises(MaskingError, match=sentence):
        begun(6, plan)


def test_the_keys_of_one_client_under_two_names_are_refused() -> None:
    played = begun(4)
    newcomer = Member("newcomer", b"")
    peers = {number: Peer(f"{number}", played.members[1].public) for number in (2, 3, 4)}
    with pytest.raises(MaskingError, match="one key as that of two"):
        newcomer.share(1, peers, played.plan)


def test_what_is_sent_does_not_tell_the_update() -> None:
    """Two updates that could not differ more: their masked bytes have the same statistics."""
    layout = layout_of((2**16,), (16,))
    for value in (0, 2**16 - 1):
        played = begun(3)
        deliver(played, played.members)
        words: list[Words] = [np.full(2**16, value, np.uint16), np.zeros(2, np.uint64)]
        send(played, layout, dict.fromkeys((1, 2, 3), words), played.members)
        sent = np.frombuffer(played.masked[1], np.uint8)
        counts = np.bincount(sent, minlength=256)
        expected = sent.size / 256
        squares = float(((counts - expected) ** 2 / expected).sum())
        assert abs(squares - 255) < 6 * (2 * 255) ** 0.5
