"""Budgets of runs that draw some clients for each round: the others need later what they miss."""

from dataclasses import dataclass, field, replace
from random import Random

import pytest

from fedaq.codec.quantizer import Spread
from fedaq.energy.cost import downlink_j_per_bit
from fedaq_server.schemes.coded import CodedBudget
from fedaq_server.schemes.scheme import Outcome, RoundState, granted_down, granted_up
from server.simulation import RADIO, SPEC, Simulation, expected_bytes, spreads

PAIRS = 5
PAIR = Simulation(rounds=15, shares=(0.5, 0.5), radios=(RADIO, RADIO))


@dataclass
class Drawn:
    """A run in which each round draws one pair of clients; what it showed.

    Attributes
    ----------
    lacks : dict of int to int
        Bytes that each pair missed.
    """

    budget_j: float
    told: bool = True
    spent_j: list[float] = field(default_factory=list)
    down_bytes: list[int] = field(default_factory=list)
    forecasts_j: list[float] = field(default_factory=list)
    lacks: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PAIRS), 0))

    def run(self) -> "Drawn":
        scheme, random = CodedBudget(self.budget_j), Random(1)
        seen: dict[str, tuple[Spread, ...]] = {}
        for number in range(1, PAIR.rounds + 1):
            pair = random.randrange(PAIRS)
            state = self._state(number, seen, pair)
            plan = scheme.plan(state)
            if plan is None:
                break
            assert plan.forecast_j is not None
            self.forecasts_j.append(sum(self.spent_j) + plan.forecast_j)
            down = expected_bytes(
                PAIR.going_down(number), granted_down(plan.downlink, state), nearest=True
            )
            down = min(down, plan.downlink.limit_bytes or 0)
            seen, up = {}, {}
            for i, (name, client) in enumerate(state.clients.items()):
                flat = PAIR.update(number, i)
                seen[name] = spreads(flat)
                grant = granted_up(scheme.grant(state, plan, client, seen[name]), seen[name], SPEC)
                up[name] = min(expected_bytes(flat, grant, nearest=False), grant.limit_bytes or 0)
            energy_j = 8 * (down * state.downlink_j_per_bit + sum(up.values()) * 1e-7)
            energy_j += state.catch_up_j
            scheme.learn(Outcome(number, 0.5, 1.0, 1.0, seen, energy_j, up, downlink_bytes=down))
            self.spent_j.append(energy_j)
            self.down_bytes.append(down)
            self.lacks = {each: lack + down for each, lack in self.lacks.items()} | {pair: 0}
        return self

    def _state(self, number: int, seen: dict[str, tuple[Spread, ...]], pair: int) -> RoundState:
        each = downlink_j_per_bit(PAIR.radios, broadcast=False)
        return replace(
            PAIR.state(number, seen),
            catch_up_j=8 * self.lacks[pair] * each,
            absent_j_per_bit=(PAIRS - 1) * each if self.told else 0.0,
            drawn=1 / PAIRS,
        )


@pytest.mark.parametrize("bits", [12.0, 20.0, 30.0])
def test_what_is_kept_for_those_who_come_back_pays_for_all_rounds(bits: float) -> None:
    """A planner that does not know of them spends too much first, and nothing is left for later."""
    drawn = Drawn(bits * PAIR.bit_j()).run()
    assert len(drawn.spent_j) == PAIR.rounds
    assert 0.9 * drawn.budget_j < sum(drawn.spent_j) <= drawn.budget_j * (1 + 1e-9)
    assert drawn.forecasts_j[0] == pytest.approx(sum(drawn.spent_j), rel=0.1)
    unaware = Drawn(drawn.budget_j, told=False).run()
    assert sum(drawn.down_bytes[:3]) < 0.8 * sum(unaware.down_bytes[:3])
    late = slice(-4, None)
    assert sum(drawn.down_bytes[late]) > sum(unaware.down_bytes[late])


def test_in_the_last_round_nobody_comes_back() -> None:
    scheme, told = CodedBudget(PAIR.bit_j()), CodedBudget(PAIR.bit_j())
    state = replace(PAIR, rounds=1).state(1, {})
    state = replace(state, drawn=1 / PAIRS)
    plan = scheme.plan(state)
    assert plan is not None
    assert told.plan(replace(state, absent_j_per_bit=1e-6)) == plan
