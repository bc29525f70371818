"""The budget scheme in simulated federations, which send nothing, and in real ones."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from math import exp
from pathlib import Path
from random import Random
from re import search
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Bits
from fedaq.codec.quantizer import Spread
from fedaq.energy.cost import RadioCost, downlink_j_per_bit
from fedaq.errors import UserError
from fedaq.settings import FedaqSettings, load_settings
from fedaq_lab.local import federate
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.run_folder import new_run
from fedaq_server.run import Run
from fedaq_server.schemes.optimizer import resolution
from fedaq_server.schemes.packed_budget import MEMORY, Budget
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState

SPEC = ModelSpec((TensorSpec("w1", (64, 50)), TensorSpec("b1", (50,)), TensorSpec("w2", (50, 10))))
RADIO = RadioCost(1e-7, 1e-7, 3e-8)
PROMISE = 0.97

# ---- A federation that only counts -------------------------------------------


def spread(deviation: float, outliers: float = 4.0) -> Spread:
    return Spread(-outliers * deviation, outliers * deviation, 0.0, deviation)


@dataclass(frozen=True)
class Simulation:
    """What a run looks like to a scheme: how ranges move, what radios cost, who drops out.

    Attributes
    ----------
    weight_growth, update_growth : float
        Factors from round to round.
    radios : sequence of RadioCost
        One per client, before fading.
    fading : float
        Each round multiplies each radio's costs by a factor between 1 and this.
    """

    rounds: int = 10
    shares: Sequence[float] = (0.5, 0.3, 0.2)
    radios: Sequence[RadioCost] = (RADIO, RADIO, RADIO)
    weight_growth: float = 1.02
    update_growth: float = 0.92
    broadcast: bool = False
    fading: float = 1.0
    lost_before_grant: float = 0.0
    lost_after_grant: float = 0.0
    seed: int = 0
    settings: FedaqSettings = field(default_factory=FedaqSettings)

    def weights(self, number: int) -> tuple[Spread, ...]:
        scale = 0.1 * self.weight_growth**number
        return tuple(spread(scale * (1 + i)) for i in range(len(SPEC.tensors)))

    def updates(self, number: int, client: int) -> tuple[Spread, ...]:
        scale = 0.03 * self.update_growth**number * (1 + 0.2 * client)
        return tuple(spread(scale * (1 + i), 6.0) for i in range(len(SPEC.tensors)))

    def state(self, number: int, seen: dict[str, tuple[Spread, ...]]) -> RoundState:
        radios = [self._faded(radio, number, i) for i, radio in enumerate(self.radios)]
        clients = {
            f"client-{i}": ClientState(f"client-{i}", share, radio, seen.get(f"client-{i}"))
            for i, (share, radio) in enumerate(zip(self.shares, radios, strict=True))
        }
        down = downlink_j_per_bit(radios, broadcast=self.broadcast)
        return RoundState(
            number, self.rounds, SPEC, self.weights(number), clients, down, self.weights(1)
        )

    def _faded(self, radio: RadioCost, number: int, client: int) -> RadioCost:
        factor = 1 + (self.fading - 1) * Random(f"{self.seed} {number} {client}").random()
        return RadioCost(
            radio.uplink_j_per_bit * factor,
            radio.downlink_j_per_bit * factor,
            radio.receive_j_per_bit * factor,
        )

    def dearest_bit_j(self) -> float:
        """What one more bit for the largest tensor costs the sender with the dearest radio."""
        last = self.state(self.rounds, {})
        uplinks = (client.radio.uplink_j_per_bit for client in last.clients.values())
        return max(SPEC.elements) * max(last.downlink_j_per_bit, *uplinks)

    def least_j(self) -> float:
        """What one bit per value costs in every round, without fading; padding in full."""
        down = downlink_j_per_bit(self.radios, broadcast=self.broadcast)
        per_bit = down + sum(radio.uplink_j_per_bit for radio in self.radios)
        padded = sum(elements + 16 * 8 + 7 for elements in SPEC.elements)
        return self.rounds * per_bit * padded


@dataclass(frozen=True)
class Round:
    """What was decided and spent in a round."""

    plan: Plan
    grants: dict[str, Bits]
    energy_j: float


def payload_bits(bits: Bits) -> int:
    """Bits by docs/reference/wire-format.md: a header of 16 bytes, codes in whole bytes."""
    return sum(8 * (16 + -(-d * b // 8)) for d, b in zip(SPEC.elements, bits, strict=True))


def run(simulation: Simulation, budget_j: float) -> list[Round]:
    scheme = Budget(budget_j, simulation.settings)
    random = Random(simulation.seed)
    seen: dict[str, tuple[Spread, ...]] = {}
    done: list[Round] = []
    for number in range(1, simulation.rounds + 1):
        state = simulation.state(number, seen)
        plan = scheme.plan(state)
        if plan is None:
            break
        grants: dict[str, Bits] = {}
        arrived = {}
        for i, (name, client) in enumerate(state.clients.items()):
            # What the last round does not use, nobody can use later.
            if number < simulation.rounds and random.random() < simulation.lost_before_grant:
                continue
            ranges = simulation.updates(number, i)
            grants[name] = scheme.grant(state, plan, client, ranges).bits
            if random.random() >= simulation.lost_after_grant:
                arrived[name] = ranges
        energy_j = state.downlink_j_per_bit * payload_bits(plan.downlink.bits) + sum(
            state.clients[name].radio.uplink_j_per_bit * payload_bits(bits)
            for name, bits in grants.items()
        )
        seen |= arrived
        done.append(Round(plan, grants, energy_j))
        sizes = {name: payload_bits(grants[name]) // 8 for name in arrived}
        scheme.learn(Outcome(number, 0.5, 1.0, 1.0, arrived, energy_j, sizes))
    return done


def spent_j(rounds: list[Round]) -> float:
    return sum(r.energy_j for r in rounds)


def mean_bits(bits: Bits) -> float:
    return SPEC.mean_bits(bits)


def uplink_bits(done: Round) -> float:
    return fmean(mean_bits(bits) for bits in done.grants.values())


def everything_at_most(done: Round, most: int) -> bool:
    return all(set(bits) == {most} for bits in (done.plan.downlink.bits, *done.grants.values()))


# ---- The budget --------------------------------------------------------------

costs = st.floats(1e-9, 1e-5)
radios = st.builds(RadioCost, costs, costs, st.one_of(st.just(0.0), costs))


@st.composite
def simulations(draw: st.DrawFn) -> Simulation:
    clients = draw(st.integers(1, 5))
    parts = [draw(st.integers(1, 100)) for _ in range(clients)]
    least = draw(st.integers(1, 3))
    return Simulation(
        rounds=draw(st.integers(1, 15)),
        shares=[part / sum(parts) for part in parts],
        radios=[draw(radios) for _ in range(clients)],
        weight_growth=draw(st.floats(0.9, 1.2)),
        update_growth=draw(st.floats(0.5, 1.3)),
        broadcast=draw(st.booleans()),
        fading=draw(st.sampled_from([1.0, 1.0, 3.0, 20.0])),
        lost_before_grant=draw(st.sampled_from([0.0, 0.3])),
        lost_after_grant=draw(st.sampled_from([0.0, 0.3])),
        seed=draw(st.integers(0, 1000)),
        settings=FedaqSettings(
            clip=draw(st.booleans()), min_bits=least, max_bits=draw(st.integers(least, 16))
        ),
    )


@profile(max_examples=150)
@given(simulations(), st.floats(0.5, 12))
def test_nothing_is_overspent_and_almost_everything_is_spent(
    simulation: Simulation, times: float
) -> None:
    budget_j = times * simulation.least_j()
    try:
        rounds = run(simulation, budget_j)
    except UserError:
        assert budget_j < 3 * simulation.fading * simulation.least_j()
        return
    assert spent_j(rounds) <= budget_j
    for done in rounds:
        for bits in (done.plan.downlink.bits, *done.grants.values()):
            assert all(
                simulation.settings.min_bits <= b <= simulation.settings.max_bits for b in bits
            )
    if len(rounds) == simulation.rounds and not everything_at_most(
        rounds[-1], simulation.settings.max_bits
    ):
        # In a run of few rounds, one more bit for the largest tensor may cost more than 3 %.
        left_j = budget_j - spent_j(rounds)
        assert left_j <= max((1 - PROMISE) * budget_j, simulation.dearest_bit_j())


@given(simulations())
def test_a_refusal_names_the_smallest_budget_that_will_do(simulation: Simulation) -> None:
    state = simulation.state(1, {})
    with pytest.raises(UserError) as caught:
        Budget(1e-12, simulation.settings).plan(state)
    found = search(r"at least (\S+) J are needed", str(caught.value))
    assert found is not None
    smallest = found[1]
    assert Budget(float(smallest), simulation.settings).plan(state) is not None
    # Six digits: one less in the last is too little.
    with pytest.raises(UserError, match="is too small"):
        Budget(float(smallest) * (1 - 2e-5), simulation.settings).plan(state)


@given(simulations())
def test_the_smallest_budget_lasts_for_the_run(simulation: Simulation) -> None:
    # Without fading it pays for every round; what noise drowns may still make them fewer.
    steady = replace(simulation, fading=1.0)
    per_bit = steady.least_j()
    budget_j = per_bit * steady.settings.min_bits * (1 + 1e-6)
    assert spent_j(run(steady, budget_j)) <= budget_j


def test_without_a_round_left_to_pay_for_the_run_ends() -> None:
    simulation = Simulation(rounds=3)
    scheme = Budget(2 * simulation.least_j(), simulation.settings)
    assert scheme.plan(simulation.state(1, {})) is not None
    scheme.learn(Outcome(1, 0.5, 1.0, 1.0, {}, scheme.budget_j, {}))
    assert scheme.plan(simulation.state(2, {})) is None


# ---- Who gets what -----------------------------------------------------------


def test_grants_do_not_depend_on_the_order_of_the_reports() -> None:
    simulation = Simulation(shares=(0.4, 0.3, 0.2, 0.1), radios=(RADIO,) * 4)
    for number, times in ((1, 2.0), (1, 5.0), (10, 5.0)):  # 10: the last, all is spent
        scheme = Budget(times * simulation.least_j(), simulation.settings)
        state = simulation.state(number, {})
        plan = scheme.plan(state)
        assert plan is not None
        seen = {
            tuple(
                sorted(
                    (i, scheme.grant(state, plan, state.clients[f"client-{i}"], ranges).bits)
                    for i in order
                    for ranges in [simulation.updates(number, i)]
                )
            )
            for order in permutations(range(4))
        }
        assert len(seen) == 1


def test_a_dearer_radio_gets_fewer_bits_half_a_bit_for_twice_the_price() -> None:
    dear = 64.0
    simulation = Simulation(
        shares=(0.5, 0.5),
        radios=(RADIO, replace(RADIO, uplink_j_per_bit=dear * RADIO.uplink_j_per_bit)),
        rounds=6,
    )
    scheme = Budget(12 * simulation.least_j(), simulation.settings)
    state = simulation.state(1, {})
    plan = scheme.plan(state)
    assert plan is not None
    ranges = simulation.updates(1, 0)
    cheap_bits, dear_bits = (
        scheme.grant(state, plan, client, ranges).bits for client in state.clients.values()
    )
    steps = [
        resolution(plan.price, client.radio.uplink_j_per_bit, client.weight**2)
        for client in state.clients.values()
    ]
    assert steps[1] == pytest.approx(dear**0.5 * steps[0])
    # Half a bit for each of six doublings, to within the rounding to whole bits.
    for cheap, expensive in zip(cheap_bits, dear_bits, strict=True):
        assert 2 <= cheap - expensive <= 4


def test_a_client_with_more_examples_gets_more_bits() -> None:
    rounds = run(Simulation(shares=(0.7, 0.2, 0.1)), 6 * Simulation().least_j())
    for done in rounds:
        bits = [mean_bits(done.grants[f"client-{i}"]) for i in range(3)]
        assert bits[0] > bits[1] >= bits[2]


def test_uplink_falls_as_updates_shrink_and_downlink_does_not_as_weights_grow() -> None:
    simulation = Simulation(rounds=24, weight_growth=1.03, update_growth=0.88)
    rounds = run(simulation, 8 * simulation.least_j())
    assert len(rounds) == 24
    # The first rounds still guess how wide updates are, and the last one spends the change.
    settled = rounds[3:-1]
    thirds = [settled[:6], settled[-6:]]
    up = [fmean(uplink_bits(r) for r in third) for third in thirds]
    down = [fmean(mean_bits(r.plan.downlink.bits) for r in third) for third in thirds]
    assert up[1] < up[0] - 0.5
    assert down[1] >= down[0]


def test_noise_of_later_rounds_weighs_more() -> None:
    # Ranges that stand still show nothing but the weight of the rounds.
    simulation = Simulation(rounds=30, weight_growth=1.0, update_growth=1.0)
    rounds = run(simulation, 5 * simulation.least_j())
    settled = rounds[3:-1]
    joules = [r.energy_j for r in settled]
    assert fmean(joules[-8:]) > 1.1 * fmean(joules[:8])
    # One price does for the whole run: weighed alike, noise costs the same in every round.
    memory = MEMORY * simulation.rounds
    prices = [r.plan.price * exp(k / memory) for k, r in enumerate(settled)]
    assert max(prices) < 1.5 * min(prices)


def test_fewer_rounds_are_run_where_noise_would_drown_what_is_sent() -> None:
    # 40 deviations wide: one bit without clipping codes noise only.
    class Wide(Simulation):
        def weights(self, number: int) -> tuple[Spread, ...]:
            return tuple(spread(0.1, 20.0) for _ in SPEC.tensors)

    wide = Wide(rounds=20, settings=FedaqSettings(clip=False))
    small, large = (run(wide, times * wide.least_j()) for times in (1.5, 8.0))
    assert len(large) == 20
    assert len(small) < 20
    # 20 deviations to each side, variance at most twice that of the signal: 15 steps at least.
    assert all(b >= 4 for done in small for b in done.plan.downlink.bits)
    assert spent_j(small) >= PROMISE * 1.5 * wide.least_j()


# ---- Real federations --------------------------------------------------------


PACKED = ("coding.entropy=false", "coding.downlink=model")


def federated(folder: Path, *assignments: str) -> list[RoundRecord]:
    settings = load_settings(environment={}, assignments=["task=digits", *PACKED, *assignments])
    records: list[RoundRecord] = []
    with new_run(folder, settings) as (_, ledger):
        asyncio.run(federate(Run(settings, ledger, records.append)))
    return records


def smallest_budget_j(folder: Path, *assignments: str) -> float:
    """Ask for too little and read from the refusal what would do."""
    with pytest.raises(UserError) as caught:
        federated(folder / "least", *assignments, "energy.budget_j=1e-9")
    found = search(r"at least (\S+) J are needed", str(caught.value))
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("broadcast", [False, True])
def test_a_real_run_spends_its_budget(broadcast: bool, tmp_path: Path) -> None:
    flag = f"energy.broadcast={str(broadcast).lower()}"
    least_j = smallest_budget_j(tmp_path, "clients=3", "rounds=6", flag)
    for times in (1.0, 3.0):
        budget_j = times * least_j
        folder = tmp_path / str(times)
        records = federated(folder, "clients=3", "rounds=6", f"energy.budget_j={budget_j}", flag)
        written = json.loads((folder / "run.json").read_text())["summary"]["energy_j"]
        assert written == pytest.approx(sum(record.energy_j for record in records))
        assert written <= budget_j
        assert len(records) == 6 or times == 1.0
        assert written >= PROMISE * budget_j


def recorded_grants(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Bits]]:
    grants: dict[str, list[Bits]] = {}
    original: Callable[..., Grant] = Budget.grant

    def grant(
        self: Budget, state: RoundState, plan: Plan, client: ClientState, ranges: object
    ) -> Grant:
        granted = original(self, state, plan, client, ranges)
        grants.setdefault(client.name, []).append(granted.bits)
        return granted

    monkeypatch.setattr(Budget, "grant", grant)
    return grants


def test_in_a_real_run_the_client_with_the_dearest_radio_gets_the_fewest_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grants = recorded_grants(monkeypatch)
    choices = (
        "clients=4",
        "rounds=4",
        "energy.radio=shannon",
        "energy.shannon.max_distance_m=20000",
    )
    energy = load_settings(environment={}, assignments=choices).energy
    cost = {
        f"client-{i}": energy.radio_cost(1, f"client-{i}", 1).uplink_j_per_bit for i in range(1, 5)
    }
    by_cost = sorted(cost, key=cost.__getitem__)
    assert cost[by_cost[-1]] > 10 * cost[by_cost[0]]
    budget_j = 4 * smallest_budget_j(tmp_path, *choices)
    federated(tmp_path, *choices, f"energy.budget_j={budget_j}")
    bits = [fmean(fmean(round_bits) for round_bits in grants[name]) for name in by_cost]
    # The shares of the data are equal, and so nearly are the ranges of the updates.
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > bits[-1] + 1
