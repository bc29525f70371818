"""How far one client can move a private sum, and whether the sum has room for its noise."""

from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaq.codec.common_grid import largest_code, reached_code
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Key
from fedaq.errors import UserError
from fedaq.privacy.clipping import CHANCE, rounded_norm
from fedaq.privacy.layout import layout_of
from fedaq.privacy.noise import LEAST_SHARE
from fedaq.privacy.sums import MaskedSum
from fedaq_client.clipping import clip, rounded_squares, shorten
from fedaq_server.privacy.release import MOST_VARIANCE, Release, most_multiplier
from fedaq_server.rounds.masking import fewest_of
from fedaq_server.schemes.masked_bytes import widths_of


def spec_of(*elements: int) -> ModelSpec:
    return ModelSpec(tuple(TensorSpec(f"t{i}", (n,)) for i, n in enumerate(elements)))


def keys_of(number: int, tensors: int) -> tuple[Key, ...]:
    return tuple(Key(number, tensor) for tensor in range(tensors))


def released(**changes: Any) -> Release:
    usual: dict[str, Any] = {
        "clip": 1.0, "multiplier": 1.0, "values": 3000, "clients": 10, "adapts": False,
        "masked": True,
    }  # fmt: skip
    return Release(**{**usual, **changes})


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.integers(1, 400), min_size=1, max_size=3),
    scale=st.floats(1e-3, 1e3),
    step=st.sampled_from([2.0**-8, 2.0**-4, 0.25, 2.0]),
    norm=st.floats(0.05, 20.0),
    seed=st.integers(0, 2**32 - 1),
    peaks=st.booleans(),
)
def test_no_update_is_longer_than_the_bound_once_it_is_rounded(
    parts: list[int], scale: float, step: float, norm: float, seed: int, peaks: bool
) -> None:
    """Also where the steps are coarse, so that rounding lengthens it far beyond its own norm."""
    spec, random = spec_of(*parts), np.random.default_rng(seed)
    values = (scale * random.standard_normal(sum(parts))).astype(np.float32)
    if peaks:
        values[1:] *= np.float32(1e-3)
    code = reached_code(step, max(1, round(20 / step)) * step)
    update, keys = Payload(spec, (code,) * len(parts)), keys_of(seed, len(parts))
    bound = rounded_norm(norm / step, sum(parts))
    own = float(np.linalg.norm(values.astype(np.float64)))
    assert clip(values, norm) == (own <= norm)
    assert np.linalg.norm(values.astype(np.float64)) <= min(own, norm) * (1 + 1e-6)
    shorten(values, update, keys, bound)
    assert rounded_squares(values, update, keys) <= bound**2


def test_an_update_is_seldom_shortened_for_what_rounding_made_of_it() -> None:
    """The bound of Kairouz et al. holds with the chance that it is made for."""
    spec, values, many = spec_of(1000), np.full(1000, 0.5, np.float32), 4000
    update = Payload(spec, (reached_code(1.0, 8.0),))
    bound = rounded_norm(float(np.linalg.norm(values)), 1000)
    longer = sum(
        rounded_squares(values, update, keys_of(number, 1)) > bound**2 for number in range(many)
    )
    assert longer <= CHANCE * many + 6 * sqrt(CHANCE * many)


def test_rounding_costs_a_few_percent_of_the_noise() -> None:
    for values in (300, 8000, 10**6):
        release = released(values=values)
        assert 1 <= release.rounded * release.step / release.clip < 1.06


@settings(deadline=None, max_examples=60)
@given(
    clients=st.integers(3, 400),
    values=st.integers(20, 10**6),
    multiplier=st.floats(0.05, 60.0),
    clip_at=st.floats(0.01, 100.0),
    up=st.booleans(),
)
def test_no_sum_wraps_with_all_codes_and_the_noise_at_their_ends(
    clients: int, values: int, multiplier: float, clip_at: float, up: bool
) -> None:
    try:
        release = released(
            clients=clients, values=values, multiplier=multiplier, clip=clip_at
        )  # fmt: skip
    except UserError:
        return  # no grid is fine and wide enough, which is said
    spec = spec_of(9)
    [code] = release.grid(spec)
    layout = layout_of(spec.elements, widths_of((code,), clients, release))
    [segment, figures] = layout.segments
    true = (clients * largest_code(code) + release.room) if up else -release.room
    modulo = np.full(9, true % 2**segment.width, np.int64)
    total = MaskedSum(layout, (modulo, np.zeros(figures.values, np.int64)))
    total.center(release.room)
    assert (total.totals[0] == true).all()


def test_there_is_room_for_the_noise_of_all_who_may_take_part() -> None:
    for clients in range(3, 3000):
        fewest = fewest_of(clients)
        assert clients / (fewest - 1) <= MOST_VARIANCE
        release_parts = released(clients=clients, values=10**5).shares(fewest)
        assert release_parts[0] >= LEAST_SHARE


@pytest.mark.parametrize("adapts", [False, True])
@pytest.mark.parametrize("clients", [3, 10, 100])
def test_the_fewest_make_the_whole_noise_but_for_one_who_looks(clients: int, adapts: bool) -> None:
    release, fewest = released(clients=clients, adapts=adapts), fewest_of(clients)
    share, of_count = release.shares(fewest)
    assert sqrt(fewest - 1) * share == pytest.approx(release.deviation)
    # The count and the values together are one release with the multiplier of the account.
    values = (release.rounded / release.deviation) ** 2
    count = (512 / (sqrt(fewest - 1) * of_count)) ** 2 if adapts else 0.0
    assert values + count == pytest.approx(1 / release.multiplier**2)


def test_the_share_of_short_updates_comes_out_of_a_count() -> None:
    release = released(adapts=True)
    assert release.within(512 * (7 - 3), 10) == pytest.approx(0.7)
    assert release.within(-512 * 10, 10) == 0


@pytest.mark.parametrize("changes", [{"multiplier": 1e6}, {"clip": 1e9}, {"values": 10**14}])
def test_noise_for_which_there_is_no_grid_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"privacy.epsilon: no grid has room for noise of"):
        released(**changes)


@pytest.mark.parametrize("values", [10, 10**4, 10**6, 10**8])
def test_the_most_noise_can_be_drawn(values: int) -> None:
    for adapts in (False, True):
        released(values=values, multiplier=most_multiplier(values), adapts=adapts, clients=30)
