"""Steps from a price, in simulated federations in which values are drawn, coded and counted."""

import asyncio
import json
import re
from dataclasses import replace
from itertools import permutations
from math import inf, log
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from fedaq.codec.quantizer import Spread
from fedaq.energy.cost import RadioCost
from fedaq.errors import UserError
from fedaq.settings import load_settings
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run
from fedaq_server.schemes.coded import (
    DROWNED,
    LEAST_DROWNED,
    MOST_DROWNED,
    CodedBudget,
)
from fedaq_server.schemes.fedaq import fedaq
from fedaq_server.schemes.scheme import Outcome, Plan, RoundState
from fedaq_server.schemes.several import CodedBudgets
from fedaq_server.schemes.spreads import arrays
from fedaq_server.schemes.step_grants import updates
from server.simulation import HEADER_BYTES, RADIO, Done, Simulation, run, spent_j, spreads

PROMISE = 0.97
# Bits per value in the whole run, of which no round is so short that noise limits its steps.
AMPLE = 100

# ---- The budget --------------------------------------------------------------

costs = st.floats(1e-9, 1e-5)
radios = st.builds(RadioCost, costs, costs, st.one_of(st.just(0.0), costs))


def any_length(random: Random, usual: int, most: int) -> int:
    return random.choice([0, usual, most, random.randint(0, most)])


@st.composite
def simulations(draw: st.DrawFn) -> Simulation:
    clients = draw(st.integers(1, 5))
    parts = [draw(st.integers(1, 100)) for _ in range(clients)]
    return Simulation(
        rounds=draw(st.integers(1, 10)),
        shares=[part / sum(parts) for part in parts],
        radios=[draw(radios) for _ in range(clients)],
        update_growth=draw(st.floats(0.5, 1.3)),
        difference_growth=draw(st.floats(0.5, 1.3)),
        broadcast=draw(st.booleans()),
        fading=draw(st.sampled_from([1.0, 1.0, 3.0, 20.0])),
        lost_before_grant=draw(st.sampled_from([0.0, 0.3])),
        lost_after_grant=draw(st.sampled_from([0.0, 0.3])),
        differences=draw(st.booleans()),
        catch_up=draw(st.sampled_from([0.0, 0.3])),
        seed=draw(st.integers(0, 1000)),
        lengths=any_length,
    )


@profile(max_examples=60)
@given(simulations(), st.floats(-2.5, 2.5))
def test_nothing_is_overspent_whatever_happens(simulation: Simulation, decades: float) -> None:
    budget_j = simulation.rounds * simulation.bit_j() * 10.0**decades
    try:
        rounds = run(simulation, budget_j)
    except UserError:
        return
    assert spent_j(rounds) <= budget_j * (1 + 1e-12)
    for done in rounds:
        for grant in (done.plan.downlink, *done.grants.values()):
            assert grant.limit_bytes is not None
            assert all(0 <= bits <= 16 for bits in grant.bits)
            assert all(
                step > 0 or bits == 0 for bits, step in zip(grant.bits, grant.steps, strict=True)
            )
        # Bare headers always fit: who can send nothing else is not refused.
        for grant in done.grants.values():
            assert grant.limit_bytes is not None
            assert grant.limit_bytes >= HEADER_BYTES


@pytest.mark.parametrize(
    ("rounds", "times"), [(6, 1.0), (6, 2.0), (12, 0.5), (12, 2.0), (30, 0.3), (30, 2.0)]
)
@pytest.mark.parametrize("differences", [True, False])
def test_almost_all_is_spent_where_lengths_are_as_expected(
    rounds: int, times: float, differences: bool
) -> None:
    """Budgets of so many bits a value and round."""
    simulation = Simulation(rounds=rounds, differences=differences)
    budget_j = times * rounds * simulation.bit_j()
    done = run(simulation, budget_j)
    assert PROMISE * budget_j <= spent_j(done) <= budget_j


@pytest.mark.parametrize("times", [0.1, 0.2])
@pytest.mark.parametrize("rounds", [6, 12, 30])
def test_almost_all_is_spent_where_there_is_next_to_nothing(rounds: int, times: float) -> None:
    """Few rounds are run then, of which each is a large share, and half of it headers."""
    simulation = Simulation(rounds=rounds)
    budget_j = times * rounds * simulation.bit_j()
    done = run(simulation, budget_j)
    assert len(done) < rounds
    assert 0.95 * budget_j <= spent_j(done) <= budget_j


@pytest.mark.parametrize("lost", [0.1, 0.4])
def test_almost_all_is_spent_where_clients_drop_out(lost: float) -> None:
    """What the last round does not use, nobody can use later."""
    simulation = Simulation(rounds=25, lost_before_grant=lost)
    budget_j = 12.0 * simulation.bit_j()
    done = run(simulation, budget_j)
    assert (1 - 2 * lost / 25 - 0.04) * budget_j <= spent_j(done) <= budget_j


@given(simulations())
@profile(max_examples=40)
def test_a_budget_that_is_too_small_is_refused_in_one_line(simulation: Simulation) -> None:
    state = replace(simulation.state(1, {}), catch_up_j=0.0)
    senders = sum(client.radio.uplink_j_per_bit for client in state.clients.values())
    headers_j = 8 * HEADER_BYTES * (state.downlink_j_per_bit + senders)
    with pytest.raises(UserError, match=r"budget_j = .* does not pay for one round") as caught:
        CodedBudget(headers_j * 0.999).plan(state)
    assert f"{headers_j:.6g} J" in str(caught.value)
    assert "\n" not in str(caught.value)
    plan = CodedBudget(headers_j * 1.001).plan(state)
    assert plan is not None


def test_a_budget_too_small_for_the_models_of_newcomers_is_refused_with_their_price() -> None:
    state = replace(Simulation().state(1, {}), catch_up_j=5.0)
    with pytest.raises(UserError, match=r"the models that clients lack take 5\.0000\d J") as caught:
        CodedBudget(1.0).plan(state)
    assert "\n" not in str(caught.value)


def test_without_a_round_left_to_pay_for_the_run_ends() -> None:
    simulation = Simulation()
    scheme = CodedBudget(simulation.bit_j())
    assert scheme.plan(simulation.state(1, {})) is not None
    scheme.learn(Outcome(1, 0.5, 1.0, 1.0, {}, scheme.budget_j, {}))
    assert scheme.plan(simulation.state(2, {})) is None


def test_fewer_rounds_are_run_where_noise_would_drown_what_is_sent() -> None:
    simulation = Simulation(rounds=30)
    few, all_ = (run(simulation, times * simulation.bit_j()) for times in (0.4, 30.0))
    assert 0 < len(few) < 30
    assert len(all_) == 30


@pytest.mark.parametrize("taken", [0.0, 0.3, 0.9])
def test_what_a_last_round_leaves_buys_no_coarser_one(taken: float) -> None:
    """Nothing would undo its noise."""
    simulation = Simulation(rounds=10)
    scheme = CodedBudget(2 * simulation.bit_j())
    first = scheme.plan(simulation.state(1, {}))
    assert first is not None
    seen = {f"client-{i}": spreads(simulation.update(1, i)) for i in range(3)}
    lengths = dict.fromkeys(seen, 1000)
    for name, client in simulation.state(1, {}).clients.items():
        scheme.grant(simulation.state(1, {}), first, client, seen[name])
    scheme.learn(Outcome(1, 0.5, 1.0, 1.0, seen, 0.1 * scheme.budget_j, lengths))
    # Far finer steps are asked for at once: all that is left is for this round.
    scheme.tolerance /= 20
    last = scheme.plan(simulation.state(2, seen))
    assert last is not None
    left = scheme.budget_j - scheme.spent_j
    scheme.learn(Outcome(2, 0.5, 0.5, 1.0, seen, taken * left, {}))
    assert scheme.last_step > 0
    scheme.tolerance *= 20
    later = scheme.plan(simulation.state(3, seen))
    assert later is None or later.price <= last.price
    assert (later is None) == (taken > 0)


def test_a_run_that_a_budget_ends_says_why_and_what_would_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulation = Simulation(rounds=30)
    done = run(simulation, 3 * simulation.bit_j())
    few, end = (record.getMessage() for record in caplog.records)
    assert f"ends the run after {len(done)} of 30 rounds" in end
    assert "of 30 rounds whose noise training bears" in few
    enough = re.search(r"about (\S+) J would pay for all", few)
    assert enough
    caplog.clear()
    assert len(run(simulation, 1.2 * float(enough[1]))) > 2 * len(done)
    run(simulation, 30 * simulation.bit_j())
    assert not [record for record in caplog.records if "30 J" in record.getMessage()]


def noise_over_signal(done: Done, simulation: Simulation) -> float:
    """Return the noise in the mean of a round's updates over their mean square."""
    noise = signal = 0.0
    for i, (name, client) in enumerate(done.state.clients.items()):
        known = updates(
            arrays(spreads(simulation.update(done.state.round, i))), done.state, client.weight
        )
        noise += float(known.harm(max(done.grants[name].steps), DROWNED))
        signal += client.weight * float(np.sum(known.power))
    return noise / signal


@pytest.mark.parametrize("growth", [0.5, 0.9, 1.1])
@pytest.mark.parametrize("times", [0.5, 2.0, 5.0])
def test_no_round_drowns_in_noise_however_updates_change(times: float, growth: float) -> None:
    """But the last, which may be twice as coarse."""
    simulation = Simulation(rounds=30, update_growth=growth)
    done = run(simulation, times * simulation.bit_j())
    for each in done[:-1]:
        assert noise_over_signal(each, simulation) <= 1.05 * DROWNED
    assert noise_over_signal(done[-1], simulation) <= 2.1 * DROWNED


def judged(*rounds: tuple[float, float]) -> list[float]:
    """Return the tolerance after rounds, each of a test's loss and a scale of the updates."""
    simulation = Simulation()
    scheme = CodedBudget(20 * simulation.bit_j())
    found, seen = [], dict[str, tuple[Spread, ...]]()
    for number, (loss, scale) in enumerate(rounds, 1):
        assert scheme.plan(simulation.state(number, seen)) is not None
        seen = {
            f"client-{i}": spreads(np.float32(scale) * simulation.update(1, i)) for i in range(3)
        }
        scheme.learn(Outcome(number, 0.5, loss, 1.0, seen, 0.0, {}))
        found.append(scheme.tolerance)
    return found


def test_the_noise_that_is_borne_follows_the_loss_of_the_test() -> None:
    falling = judged((3.0, 1.0), (2.0, 0.9), (1.0, 0.8), (0.5, 0.7), (0.4, 0.6))
    assert falling == sorted(falling)
    assert DROWNED < falling[1] < falling[-1] == MOST_DROWNED
    # Larger updates undo noise.
    assert judged((3.0, 1.0), (2.0, 1.2), (1.0, 1.4)) == [DROWNED] * 3
    risen = judged((1.0, 1.0), (1.05, 1.0), (1.5, 1.0), (float("nan"), 1.0), (9.0, 1.0))
    assert risen[1] == DROWNED > risen[2] > risen[3] >= risen[4] >= LEAST_DROWNED
    # Nobody tests where a server's program is another's.
    assert judged(*[(float("nan"), 1.0)] * 3) == [DROWNED] * 3


def test_where_all_need_the_whole_model_the_difference_is_still_planned() -> None:
    """It costs nothing then, but whoever misses it may need it later."""
    simulation = Simulation()
    scheme = CodedBudget(10 * simulation.bit_j())
    state = replace(simulation.state(2, {}), downlink_j_per_bit=0.0, catch_up_j=1e-3)
    plan = scheme.plan(state)
    assert plan is not None
    usual = CodedBudget(10 * simulation.bit_j()).plan(simulation.state(2, {}))
    assert usual is not None
    for step, other in zip(plan.downlink.steps, usual.downlink.steps, strict=True):
        assert step == 0 or 0.1 < step / other < 10


# ---- Who gets what -----------------------------------------------------------


def settled(simulation: Simulation, budget_j: float) -> tuple[CodedBudget, RoundState, Plan]:
    """Return a scheme that has seen a round, and the plan of the second."""
    scheme = CodedBudget(budget_j)
    state = simulation.state(1, {})
    assert scheme.plan(state) is not None
    ranges = {name: spreads(simulation.update(1, i)) for i, name in enumerate(state.clients)}
    plan = scheme.plan(state)
    assert plan is not None
    for name, client in state.clients.items():
        scheme.grant(state, plan, client, ranges[name])
    used = dict.fromkeys(state.clients, 900)
    scheme.learn(Outcome(1, 0.5, 1.0, 1.0, ranges, budget_j / 20, used))
    state = simulation.state(2, ranges)
    plan = scheme.plan(state)
    assert plan is not None
    return scheme, state, plan


def test_one_price_makes_all_steps() -> None:
    """``r = sqrt(price e / (2 ln2 c))``, `c` a fourth of the squared weight, 1/4 down."""
    simulation = Simulation(
        shares=(0.5, 0.3, 0.2),
        radios=(RADIO, RadioCost(5e-7, 2e-7, 0.0), RadioCost(2e-8, 1e-8, 1e-8)),
    )
    scheme, state, plan = settled(simulation, AMPLE * simulation.bit_j())
    assert plan.price > 0

    def step(j_per_bit: float, weight: float) -> float:
        return float(np.sqrt(plan.price * j_per_bit / (2 * log(2) * weight**2 / 4)))

    for i, client in enumerate(state.clients.values()):
        grant = scheme.grant(state, plan, client, spreads(simulation.update(2, i)))
        expected = step(client.radio.uplink_j_per_bit, client.weight)
        assert [s for s in grant.steps if s] == pytest.approx(
            [expected] * sum(map(bool, grant.bits))
        )
        assert grant.bits[0]
    assert plan.downlink.steps[0] == pytest.approx(step(state.downlink_j_per_bit, 1.0))
    assert len(set(plan.downlink.steps) - {0.0}) == 1


@pytest.mark.parametrize("times", [16.0, 256.0])
def test_a_dearer_radio_gets_coarser_steps_by_the_root_of_its_price(times: float) -> None:
    dear = replace(RADIO, uplink_j_per_bit=times * RADIO.uplink_j_per_bit)
    simulation = Simulation(shares=(0.5, 0.5), radios=(RADIO, dear))
    scheme, state, plan = settled(simulation, AMPLE * simulation.bit_j())
    ranges = spreads(simulation.update(2, 0))
    cheap, coarse = (scheme.grant(state, plan, client, ranges) for client in state.clients.values())
    assert coarse.steps[0] == pytest.approx(times**0.5 * cheap.steps[0])
    assert coarse.bits[0] <= cheap.bits[0]


def test_grants_do_not_depend_on_the_order_of_the_reports() -> None:
    simulation = Simulation()
    for budget in (2.0, 20.0):
        seen = set()
        for order in permutations(range(3)):
            first = CodedBudget(budget * simulation.bit_j())
            state = simulation.state(1, {})
            plan = first.plan(state)
            assert plan is not None
            later, later_state, later_plan = settled(simulation, budget * simulation.bit_j())
            grants = {}
            for i in order:
                name = f"client-{i}"
                grants[name] = (
                    first.grant(state, plan, state.clients[name], spreads(simulation.update(1, i))),
                    later.grant(
                        later_state, later_plan, later_state.clients[name],
                        spreads(simulation.update(2, i)),
                    ),
                )  # fmt: skip
            seen.add(tuple(sorted((name, repr(grant)) for name, grant in grants.items())))
        assert len(seen) == 1


def test_a_grant_does_not_depend_on_what_others_report() -> None:
    simulation = Simulation()
    grants = []
    for scale in (1.0, 1000.0):
        scheme, state, plan = settled(simulation, 20 * simulation.bit_j())
        other = np.float32(scale) * simulation.update(2, 0)
        scheme.grant(state, plan, state.clients["client-0"], spreads(other))
        mine = spreads(simulation.update(2, 1))
        grants.append(scheme.grant(state, plan, state.clients["client-1"], mine))
    assert grants[0] == grants[1]


def test_late_steps_are_finer_where_updates_shrink() -> None:
    """The lengths stay about the same, so joules buy finer steps."""
    simulation = Simulation(rounds=24, update_growth=0.85, difference_growth=0.85)
    done = run(simulation, 10 * simulation.bit_j())
    assert len(done) == 24
    steps = [max(d.grants["client-0"].steps) for d in done]
    assert max(steps[-8:-1]) < min(steps[2:6])


def test_what_is_foreseen_is_what_the_same_updates_would_be_granted() -> None:
    """Of clients that sent an update; others are expected to send what the first of those did."""
    simulation = Simulation()
    scheme, state, _ = settled(simulation, 20 * simulation.bit_j())
    newcomer = replace(state.clients["client-2"], ranges=None)
    state = replace(state, clients={**state.clients, "client-2": newcomer})
    first = state.clients["client-0"].ranges
    for planner in (scheme, CodedBudgets(inf, uplink=0.01, downlink=0.003)):
        plan = planner.plan(state)
        assert plan is not None
        for name, client in state.clients.items():
            ranges = client.ranges or first
            assert ranges is not None
            assert plan.uplink_bits[name] == planner.grant(state, plan, client, ranges).bits
            assert all(isinstance(bits, int) for bits in plan.uplink_bits[name])


# ---- Without a budget --------------------------------------------------------


def test_without_a_budget_all_steps_are_the_settings() -> None:
    simulation = Simulation()
    scheme = CodedBudgets(inf, uplink=0.1, downlink=0.03)
    state = simulation.state(2, {})
    plan = scheme.plan(state)
    assert plan is not None
    assert set(plan.downlink.steps) <= {0.03, 0.0}
    for i, client in enumerate(state.clients.values()):
        grant = scheme.grant(state, plan, client, spreads(simulation.update(2, i)))
        assert set(grant.steps) <= {0.1, 0.0}
        assert grant.limit_bytes is None


@pytest.mark.parametrize(
    ("assignments", "steps"),
    [
        ((), (None, None)),
        (("fedaq.uplink_resolution=0.2",), (0.2, 0.03)),
        (("fedaq.downlink_resolution=0.02",), (0.1, 0.02)),
        (("coding.downlink=model",), (0.1, 0.16)),
    ],
)
def test_steps_follow_from_noise_unless_one_is_set(
    assignments: tuple[str, ...], steps: tuple[float | None, float | None]
) -> None:
    scheme = fedaq(load_settings(environment={}, assignments=assignments))
    assert isinstance(scheme, CodedBudgets)
    assert (scheme.uplink, scheme.downlink) == steps


@pytest.mark.parametrize(
    ("assignments", "kind"),
    [
        ((), "CodedBudgets"),
        (("energy.budget_j=1",), "CodedBudgets"),
        (("coding.entropy=false",), "Resolution"),
        (("coding.entropy=false", "energy.budget_j=1"), "Budget"),
    ],
)
def test_settings_choose_the_scheme(assignments: tuple[str, ...], kind: str) -> None:
    settings = load_settings(environment={}, assignments=assignments)
    assert type(fedaq(settings)).__name__ == kind


# ---- A real federation -------------------------------------------------------


def test_a_real_run_spends_its_budget_and_no_more(tmp_path: Path) -> None:
    settings = load_settings(
        environment={},
        assignments=["task=digits", "clients=3", "rounds=10", "energy.budget_j=0.08"],
    )
    asyncio.run(federate(Run(settings, Ledger(tmp_path), lambda record: None)))
    document = json.loads((tmp_path / "run.json").read_text())
    spent = document["summary"]["energy_j"]
    assert 0.9 * 0.08 <= spent <= 0.08
    bits = 8 * sum(
        entry["uplink_payload_bytes"] + entry["downlink_payload_bytes"]
        for entry in document["rounds"]
    )
    assert spent == pytest.approx(1e-7 * bits)
    assert document["summary"]["final_accuracy"] > 0.9
