"""Steps from the noise that updates bear, where neither a budget nor a step is set."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from fedaq.codec.quantizer import Floats
from fedaq_server.schemes.expected import coarsest_step, coarsest_steps
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, RoundState
from fedaq_server.schemes.several import CodedBudgets
from fedaq_server.schemes.spreads import arrays, stacked
from fedaq_server.schemes.step_grants import updates
from fedaq_server.schemes.usual_steps import MOST_NOISE, NOISE, NoiseSteps
from server.simulation import RADIO, SPEC, Simulation, spreads

SIMULATION = Simulation(shares=(0.4, 0.3, 0.3))


def update(scale: float, client: int) -> Floats:
    drawn: Floats = np.float32(scale) * SIMULATION.update(1, client)
    return drawn


def granted(*scales: float) -> list[dict[str, Grant]]:
    """Return the grants of rounds with updates of these scales."""
    scheme, found = CodedBudgets(inf), []
    for number, scale in enumerate(scales, 1):
        state = SIMULATION.state(number, {})
        plan = scheme.plan(state)
        assert plan is not None
        ranges = {name: spreads(update(scale, i)) for i, name in enumerate(state.clients)}
        found.append(
            {
                name: scheme.grant(state, plan, client, ranges[name])
                for name, client in state.clients.items()
            }
        )
        scheme.learn(Outcome(number, 0.5, 1.0, 1.0, ranges, 1.0, {}))
    return found


def step(grants: dict[str, Grant], name: str = "client-0") -> float:
    return max(grants[name].steps)


@profile(max_examples=20)
@given(st.floats(-4, 4))
def test_steps_have_the_unit_of_the_updates(decades: float) -> None:
    scales = (1.0, 1.5, 0.8)
    usual = granted(*scales)
    scaled = granted(*(10**decades * scale for scale in scales))
    for one, other in zip(usual, scaled, strict=True):
        for name in one:
            assert other[name].bits == one[name].bits
            assert step(other, name) == pytest.approx(10**decades * step(one, name), rel=2e-3)


def noise_over_signal(step: float, scale: float, number: int) -> float:
    """Return the noise of rounding at random in the mean of updates like the first, as drawn."""
    state: RoundState = SIMULATION.state(number, {})
    values = update(scale, 0).astype(np.float64)
    up = values / step - np.floor(values / step)
    noise = state.squared_weights * step**2 * np.sum(up * (1 - up))
    return float(noise / np.sum(values**2))


def test_the_first_updates_and_the_largest_get_so_much_noise() -> None:
    first, second, third = granted(1.0, 2.0, 2.0)
    assert noise_over_signal(step(first), 1.0, 1) == pytest.approx(NOISE, rel=0.1)
    # What is learned is the mean over the clients, and known a round later.
    assert noise_over_signal(step(second), 1.0, 2) == pytest.approx(NOISE, rel=0.4)
    assert step(third) == pytest.approx(2 * step(second), rel=1e-2)


def test_steps_stay_while_updates_shrink_until_noise_would_drown_them() -> None:
    first, second, third, last = granted(1.0, 0.9, 0.5, 0.01)
    del first
    assert step(second) == step(third)
    assert step(last) < step(third)
    assert noise_over_signal(step(last), 0.01, 4) == pytest.approx(MOST_NOISE, rel=0.1)


def test_what_goes_down_is_finer_by_the_noise_that_averages_out() -> None:
    scheme = CodedBudgets(inf, noise_step=0.01)
    state = SIMULATION.state(2, {})
    plan = scheme.plan(state)
    assert plan is not None
    assert max(plan.downlink.steps) == pytest.approx(0.01 * state.squared_weights**0.5)


def test_what_goes_down_to_a_crowd_is_as_fine_as_what_goes_to_ten() -> None:
    """A step up of as many times as there are clients brings the same noise to their mean."""
    downs = []
    for clients in (10, 40, 1000):
        many = Simulation(shares=(1 / clients,) * clients, radios=(RADIO,) * clients)
        downs.append(NoiseSteps(0.01 * clients).steps(many.state(2, {}))[1])
    assert downs == pytest.approx([downs[0]] * 3)
    assert downs[0] == pytest.approx(0.1 * 10**-0.5)


def test_a_round_without_an_update_teaches_nothing() -> None:
    scheme = CodedBudgets(inf)
    scheme.plan(SIMULATION.state(1, {}))
    scheme.learn(Outcome(1, 0.5, 1.0, 1.0, {}, 1.0, {}))
    assert scheme.noise_step is None


def test_an_update_of_zeros_gets_a_grant() -> None:
    scheme, state = CodedBudgets(inf), SIMULATION.state(1, {})
    plan = scheme.plan(state)
    assert plan is not None
    client: ClientState = state.clients["client-0"]
    grant = scheme.grant(state, plan, client, spreads(np.zeros(SPEC.parameters, np.float32)))
    assert all(0 <= each < inf for each in grant.steps)


def test_updates_of_zeros_teach_nothing() -> None:
    scheme, state = CodedBudgets(inf), SIMULATION.state(1, {})
    scheme.plan(state)
    nothing = spreads(np.zeros(SPEC.parameters, np.float32))
    plan = scheme.plan(state)
    assert plan is not None
    for client in state.clients.values():
        scheme.grant(state, plan, client, nothing)
    scheme.learn(Outcome(1, 0.5, 1.0, 1.0, dict.fromkeys(state.clients, nothing), 1.0, {}))
    assert scheme.noise_step is None


def test_of_thousands_of_clients_each_step_is_finite() -> None:
    """Their noise averages out, however coarse they are."""
    many = Simulation(shares=(1 / 4000,) * 4000, radios=(RADIO,) * 4000)
    state = many.state(1, {})
    steps = NoiseSteps(None)
    client = state.clients["client-0"]
    sent = updates(arrays(spreads(many.update(1, 0))), state, client.weight)
    assert 0 < steps.step(state, client, sent) < inf


@pytest.mark.parametrize(
    ("clients", "alike", "crowd"),
    [(10, 0.0, 1.0), (100, 1.0, 1.0), (100, 0.0, 0.1), (400, 0.5, 0.92)],
)
def test_of_what_clients_do_not_agree_on_less_noise_is_borne_the_more_they_are(
    clients: int, alike: float, crowd: float
) -> None:
    """Updates are rounded at random, and their mean is what is known of them."""
    many = Simulation(shares=(1 / clients,) * clients, radios=(RADIO,) * clients)
    state, rng = many.state(1, {}), np.random.default_rng(1)
    common = rng.normal(size=SPEC.parameters)
    steps, ranges, mean = NoiseSteps(None), {}, np.zeros(SPEC.parameters)
    for name, client in state.clients.items():
        own = rng.normal(size=SPEC.parameters)
        values = (alike**0.5 * common + (1 - alike) ** 0.5 * own).astype(np.float32)
        ranges[name] = spreads(values)
        known = updates(arrays(ranges[name]), state, client.weight)
        granted = steps.step(state, client, known)
        codes = np.floor(values / granted + rng.random(SPEC.parameters))
        mean += granted * codes / clients
    learned = steps.learned(state, ranges, float(mean @ mean))
    # It is smoothed: of the first round, the half of its decades.
    assert learned.crowd == pytest.approx(crowd**0.5, rel=0.3)
    assert learned.uplink is not None
    unaware = steps.learned(state, ranges).uplink
    assert unaware is not None
    assert learned.uplink <= unaware


@profile(max_examples=30)
@given(
    st.lists(st.floats(-6, 3), min_size=1, max_size=5),
    st.sampled_from([NOISE, MOST_NOISE]),
    st.floats(-8, 4),
)
def test_steps_of_many_updates_are_those_of_each(
    decades: list[float], tolerance: float, asked: float
) -> None:
    shares = (1 / len(decades),) * len(decades)
    state = Simulation(shares=shares, radios=(RADIO,) * len(decades)).state(1, {})
    rows = [spreads(update(10**each, i % 3)) for i, each in enumerate(decades)]
    weights, step = np.array(shares), 10**asked
    one_by_one = [
        coarsest_step(state, client, updates(arrays(row), state, client.weight), tolerance, step)
        for client, row in zip(state.clients.values(), rows, strict=True)
    ]
    together = updates(stacked(rows), state, weights[:, None])
    found = coarsest_steps(state, weights, together, tolerance, np.full(len(rows), step))
    assert found.tolist() == one_by_one
