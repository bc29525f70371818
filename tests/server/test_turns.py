"""Whose statistics count in a round, and how far apart those of clients are."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.codec.quantizer import tensor_spread
from fedaq.settings import LimitsSettings
from fedaq_server.conduct import Conduct
from fedaq_server.rounds.turns import LEAST_REPORTS, reporters, square_apart

ALIKE, UNLIKE = 1e-3, 10.0
EQUAL = {f"client-{i}": 100 for i in range(7)}


def test_all_report_while_nothing_is_known_and_where_clients_are_unlike() -> None:
    assert reporters(EQUAL, 1, inf) == EQUAL.keys()
    assert reporters(EQUAL, 2, UNLIKE) == EQUAL.keys()
    assert reporters({"only": 3}, 2, ALIKE) == {"only"}


def test_where_clients_are_alike_two_report_and_everybody_is_heard_as_often() -> None:
    turns = [reporters(EQUAL, number, ALIKE) for number in range(1, 8)]
    assert all(len(turn) == LEAST_REPORTS for turn in turns)
    assert [sum(name in turn for turn in turns) for name in EQUAL] == [2] * 7
    assert all(len(reporters(EQUAL, number, 0.0)) == LEAST_REPORTS for number in range(3))


@given(
    st.lists(st.integers(1, 1000), min_size=2, max_size=30),
    st.integers(1, 100),
    st.floats(0, 10),
    st.floats(1, 10),
)
def test_less_alike_more_report_and_they_have_the_data_of_as_many_clients(
    weights: list[int], number: int, apart: float, times: float
) -> None:
    held = {f"{i:02}": weight for i, weight in enumerate(weights)}
    few, more = (reporters(held, number, square) for square in (apart, times * apart))
    # The turns of few and of more do not begin at the same client.
    assert sum(map(held.get, few)) >= LEAST_REPORTS * np.mean(weights)  # type: ignore[arg-type]
    equal = dict.fromkeys(held, 1)
    assert len(reporters(equal, number, apart)) <= len(reporters(equal, number, times * apart))
    assert more <= held.keys()


@pytest.mark.parametrize("apart", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("step", [0.0, 0.3])
def test_how_far_apart_clients_are_is_found_beside_what_rounding_adds(
    apart: float, step: float
) -> None:
    generator = np.random.default_rng(1)
    values, weights = 5000, [100, 300, 200]
    common = generator.laplace(0, 0.4, values)
    changes = [common + apart * generator.standard_normal(values) for _ in weights]
    decoded = [
        step * np.floor(change / step + generator.random(values)) if step else change
        for change in changes
    ]
    mean = np.average(decoded, axis=0, weights=weights).astype(np.float32)
    found = square_apart(
        [tensor_spread(change.astype(np.float32)) for change in changes],
        weights,
        [step] * len(weights),
        mean,
    )
    assert found == pytest.approx(apart**2, rel=0.1, abs=4e-3)


def test_one_client_says_nothing_of_others() -> None:
    values = np.ones(4, np.float32)
    assert square_apart([tensor_spread(values)], [1], [0.1], values) is None


def test_what_is_known_outlasts_a_restart() -> None:
    limits = LimitsSettings()
    conduct = Conduct(limits)
    assert Conduct.restored(limits, conduct.state()).apart == inf
    conduct.learn_apart(0.5)
    conduct.learn_apart(0.1)
    assert conduct.apart == pytest.approx(0.3)
    assert Conduct.restored(limits, conduct.state()) == conduct
    # Of an earlier version.
    older = {key: value for key, value in conduct.state().items() if key != "apart"}
    assert Conduct.restored(limits, older).apart == inf
