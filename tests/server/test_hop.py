"""The hop of a relay: its clients get the steps that they would get without it."""

from dataclasses import replace
from math import inf, nan

import pytest

from fedaq.codec.quantizer import Spread
from fedaq_server.schemes.hop import PricedHop, hop_scheme
from fedaq_server.schemes.scheme import Grant, Outcome, RoundState
from fedaq_server.schemes.several import CodedBudgets
from server.simulation import RADIO, Simulation, spreads
from system import live

# Four clients that are alike, directly, and two of them behind a relay of half the weight.
DIRECT = Simulation(rounds=8, shares=(0.25,) * 4, radios=(RADIO,) * 4)
BEHIND = Simulation(rounds=8, shares=(0.25,) * 2, radios=(RADIO,) * 2)
Seen = dict[str, tuple[Spread, ...]]


def state_of(number: int, seen: Seen, *, relayed: bool) -> RoundState:
    state = (BEHIND if relayed else DIRECT).state(number, seen)
    return replace(state, share=0.5 if relayed else 1.0)


def ranges_of(number: int, state: RoundState) -> Seen:
    return dict.fromkeys(state.clients, spreads(DIRECT.update(number, 0)))


def granted(scheme: CodedBudgets, number: int, seen: Seen, *, relayed: bool) -> tuple[Grant, Grant]:
    """Return what a round grants: what goes down, and one of the equal updates."""
    state = state_of(number, seen, relayed=relayed)
    plan = scheme.plan(state)
    assert plan is not None
    ranges = ranges_of(number, state)
    grants = {
        name: scheme.grant(state, plan, client, ranges[name])
        for name, client in state.clients.items()
    }
    scheme.learn(Outcome(number, nan, nan, 1.0, ranges, 0.001, dict.fromkeys(ranges, 200)))
    return plan.downlink, grants["client-0"]


def step(grant: Grant) -> float:
    return max(grant.steps)


def test_at_one_price_a_client_behind_a_relay_gets_the_step_of_a_direct_one() -> None:
    direct, hop, price = CodedBudgets(0.02), PricedHop(inf), 0.0
    seen: Seen = {}
    for number in range(1, 5):
        state = state_of(number, seen, relayed=False)
        plan = direct.plan(state)
        assert plan is not None
        client, ranges = state.clients["client-0"], ranges_of(number, state)
        without = direct.grant(state, plan, client, ranges["client-0"])
        for name in list(state.clients)[1:]:
            direct.grant(state, plan, state.clients[name], ranges[name])
        direct.learn(Outcome(number, nan, nan, 1.0, ranges, 0.001, dict.fromkeys(ranges, 200)))
        price = plan.price
        hop.told(price, 1.0, 1.0)
        down, behind = granted(hop, number, seen, relayed=True)
        if number > 1:  # of the first, no price says anything
            assert step(behind) == pytest.approx(step(without))
            # Half of the clients listen, and half of the error counts.
            assert step(down) == pytest.approx(step(plan.downlink))
        seen = ranges
    assert hop.most_price > price


def test_without_a_price_steps_are_those_of_a_run_without_a_budget() -> None:
    free, hop, seen = CodedBudgets(inf), PricedHop(inf), Seen()
    for number in range(1, 5):
        hop.told(0.0, 0.0, 0.0)
        down, up = granted(free, number, seen, relayed=False)
        below, behind = granted(hop, number, seen, relayed=True)
        assert step(behind) == pytest.approx(step(up))
        assert step(below) == pytest.approx(step(down))
        seen = ranges_of(number, state_of(number, seen, relayed=False))
    assert hop.most_price == 0


def test_without_a_price_steps_that_are_set_are_taken() -> None:
    hop = PricedHop(inf, uplink=0.02, downlink=0.005)
    down, up = granted(hop, 2, {}, relayed=True)
    assert (step(up), step(down)) == (0.02, 0.005)


def test_what_the_first_updates_take_follows_from_all_rounds() -> None:
    """With more joules for all rounds, steps are finer, whatever this one may take at the most."""
    steps = []
    for reserve_j in (0.02, 0.2):
        hop = PricedHop(inf)
        hop.told(1e-3, 0.2, reserve_j)
        steps.append(step(granted(hop, 1, {}, relayed=True)[1]))
    assert steps[1] < steps[0] / 2


def test_a_hop_whose_limit_pays_for_nothing_has_no_round() -> None:
    hop = PricedHop(inf)
    hop.told(1.0, 1e-12, 1e-12)
    assert hop.plan(state_of(1, {}, relayed=True)) is None


def test_a_relay_without_budget_has_the_steps_of_its_settings() -> None:
    set_ = hop_scheme(live.settings_of(2, fedaq__uplink_resolution=0.05))
    assert isinstance(set_, PricedHop)
    assert set_.uplink == 0.05
    found = hop_scheme(live.settings_of(2))
    assert isinstance(found, PricedHop)
    assert found.uplink is None
