"""FedAQ with several budgets: joules, bytes and money, of the run and of its devices.

Whatever they are, a byte has one effective price for each sender (`fedaq_server.schemes.prices`).
So a round with many budgets is planned as one with a single budget and other radios: those whose
joules per bit are these prices. What cannot be overspent is sure by limits, as there.

A budget of the run is to be spent. One of a device is a limit: a device that could pay for more
takes the steps of a run without a budget (`fedaq_server.schemes.usual_steps`). With joules of the
run alone, the round is that of `fedaq_server.schemes.coded`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite

import numpy as np

from fedaq.codec.quantizer import Spread
from fedaq.energy.budgets import JOULES, written
from fedaq.energy.cost import RadioCost
from fedaq.errors import UserError
from fedaq_server.accounts import ROUNDING
from fedaq_server.schemes.budgeted_round import BudgetedRound, of_run
from fedaq_server.schemes.code_lengths import Codes
from fedaq_server.schemes.coded import CodedBudget
from fedaq_server.schemes.coded_round import SLACK
from fedaq_server.schemes.expected import (
    FIRST_UPDATE,
    start_step,
    step_for,
)
from fedaq_server.schemes.optimizer import resolution
from fedaq_server.schemes.prices import Prices
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState
from fedaq_server.schemes.spending import (
    header_bytes,
    known_spreads,
    least_down_bytes,
    round_budget,
)
from fedaq_server.schemes.spreads import arrays, stacked
from fedaq_server.schemes.step_grants import (
    downlink_grant,
    foreseen,
    updates,
    uplink_grant,
)
from fedaq_server.schemes.usual_steps import ConstantSteps, NoiseSteps

# Steps that differ by less are the same.
_SAME = 1e-9


@dataclass
class CodedBudgets(CodedBudget):
    """The scheme ``fedaq`` with entropy-coded payloads and any budgets, also none.

    Attributes
    ----------
    budget_j : float
        Of the run; infinite for any number.
    uplink, downlink : float, optional
        Steps where no budget asks for others, in the unit of the weights; None if they follow from
        the noise that updates bear.
    noise_step : float, optional
        The uplink's that does, once an update was seen.
    crowd : float
        As of `NoiseSteps`.
    """

    uplink: float | None = None
    downlink: float | None = None
    noise_step: float | None = None
    crowd: float = 1.0
    _planned: "_Planned | None" = None
    _bought: "_Bought | None" = None

    def plan(self, state: RoundState) -> Plan | None:
        """Find the prices, the downlink step and every client's limit.

        Raises
        ------
        UserError
            If a budget does not pay for a round.
        """
        self._planned = self._bought = None
        of_joules = all(purse.unit == JOULES and not purse.client for purse in state.purses)
        if of_joules and isfinite(self.budget_j):
            return super().plan(state)
        if not state.purses:
            return self._plan_free(state)
        if not _pay_for_headers(state):
            return None
        round_ = BudgetedRound(state, self._expected(state), self._usual.steps(state))
        found = round_.prices()
        if state.round > 1 and round_.nobody_pays(found):
            return None
        if of_run(state.purses):
            return self._plan_run(state, round_, found)
        return self._plan_devices(state, round_, found)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give the client the step of its price, and its limit."""
        planned, bought = self._planned, self._bought
        if planned is not None:
            priced = planned.state.clients[client.name]
            granted = planned.inner.grant(planned.state, planned.plan, priced, ranges)
            return replace(granted, limit_bytes=planned.limits[client.name])
        if bought is None:
            return super().grant(state, plan, client, ranges)
        sent = updates(arrays(ranges), state, client.weight, client.reports)
        step, limit = self._usual.step(state, client, sent), None
        if client.name in bought.bytes:
            bytes_ = bought.bytes[client.name]
            limit = header_bytes(state) + int(SLACK * bytes_)
            if not self.longer:
                # Nothing was known of the updates, so nothing of the price. The bytes are.
                step = max(step, step_for(sent, 8 * bytes_, 1.0))
            elif bought.steps[client.name] > bought.usual * (1 + _SAME):
                step = bought.steps[client.name]
        bought.sent[client.name] = sent.codes(step)
        return replace(uplink_grant(sent, step), limit_bytes=limit)

    def learn(self, outcome: Outcome) -> None:
        """Take note of what was spent, and of how long codes were."""
        bought = self._bought
        if bought is None:
            if self._planned is not None:
                self._round = self._planned.inner._round
            super().learn(outcome)
            return
        self.spent_j += outcome.energy_j
        self._learn_lengths(outcome, bought.sent, bought.down)
        usual = self._usual
        if isinstance(usual, NoiseSteps):
            learned = usual.learned(bought.state, outcome.update_ranges, outcome.mean_power)
            self.noise_step, self.crowd = learned.uplink, learned.crowd

    @property
    def _usual(self) -> ConstantSteps | NoiseSteps:
        if self.uplink is None or self.downlink is None:
            return NoiseSteps(self.noise_step, self.crowd)
        return ConstantSteps(self.uplink, self.downlink)

    def _plan_free(self, state: RoundState) -> Plan:
        """Plan a round that no budget limits."""
        up, down = self._usual.steps(state)
        self._bought = _Bought(state, up)
        spreads = stacked(known_spreads(state, FIRST_UPDATE))
        steps = np.full(len(state.clients), up)
        return Plan(downlink_grant(state, down), foreseen(state, spreads, steps))

    def _plan_run(self, state: RoundState, round_: BudgetedRound, found: Prices) -> Plan | None:
        """Plan a round whose budgets, the run's among them, are to be spent."""
        inner, priced = self._in_one_currency(state, found)
        plan = inner.plan(priced)
        if plan is None:
            return None
        assert inner._round is not None
        expected = dict(zip(state.clients, round_.up_bytes(found.up).tolist(), strict=True))
        down = plan.downlink.limit_bytes
        most = {name: inner._round.limit_bytes(each) for name, each in priced.clients.items()}
        limit, limits = _within_run(state, down, most, expected)
        self._planned = _Planned(inner, priced, plan, limits)
        return replace(
            plan,
            downlink=replace(plan.downlink, limit_bytes=limit),
            price=plan.price * round_.price_of_a_joule(found),
            forecast_j=round_.forecast_j(found),
            least_up_bytes=round_.least_up_bytes(),
        )

    def _plan_devices(self, state: RoundState, round_: BudgetedRound, found: Prices) -> Plan:
        """Plan a round that devices alone limit."""
        steps, names = round_.steps(found), list(state.clients)
        own = {purse.client for purse in state.purses}
        bytes_ = dict(zip(names, round_.up_bytes(found.up).tolist(), strict=True))
        down = resolution(1.0, found.down / 8, state.share)
        self._bought = _Bought(
            state,
            round_.usual[0],
            dict(zip(names, steps.tolist(), strict=True)),
            {name: each for name, each in bytes_.items() if name in own},
            None if round_.is_first else round_.expected.down_codes(down),
        )
        start = start_step(state) if round_.is_first else 0.0
        return Plan(
            downlink_grant(state, start or down),
            foreseen(state, round_.expected.updates.spreads, steps),
            forecast_j=round_.forecast_j(found),
            least_up_bytes=round_.least_up_bytes(),
        )

    def _in_one_currency(self, state: RoundState, found: Prices) -> tuple[CodedBudget, RoundState]:
        """Return the round as one with a single budget sees it: prices in the place of joules."""
        clients = {
            name: replace(client, radio=RadioCost(price / 8, found.down / 8 / len(state.clients)))
            for (name, client), price in zip(state.clients.items(), found.up.tolist(), strict=True)
        }
        priced = replace(
            state,
            clients=clients,
            downlink_j_per_bit=found.down / 8,
            catch_up_j=0.0,
            absent_j_per_bit=0.0,
            purses=(),
        )
        known = {f.name: getattr(self, f.name) for f in fields(CodedBudget) if f.name[0] != "_"}
        now = self._expected(priced)
        headers = header_bytes(state) * float(np.sum(found.up))
        headers += least_down_bytes(state) * found.down
        rounds = state.rounds - state.round + 1
        # As much as makes these very prices, at which all budgets are kept.
        budget = (
            round_budget(max(now.round_j(1.0), headers * (1 + 1e-9)), rounds, priced)
            + now.start_j()
        )
        return CodedBudget(**known | {"budget_j": budget, "spent_j": 0.0, "owed_j": 0.0}), priced


@dataclass(frozen=True)
class _Planned:
    """A round that was planned in one currency.

    Attributes
    ----------
    inner : CodedBudget
    state : RoundState
        With prices in the place of joules.
    plan : Plan
        Of `inner`.
    limits : mapping of str to int
        What each update may take, in bytes.
    """

    inner: CodedBudget
    state: RoundState
    plan: Plan
    limits: Mapping[str, int]


@dataclass(frozen=True)
class _Bought:
    """A round of steps that are usual, or that devices with a budget buy.

    Attributes
    ----------
    state : RoundState
    usual : float
        Step of an update that no budget limits.
    steps, bytes : mapping of str to float
        Of each update of such a device, as they are expected.
    down : Codes, optional
        What goes down, as far as it was foreseen.
    sent : dict of str to Codes
        What was granted.
    """

    state: RoundState
    usual: float
    steps: Mapping[str, float] = field(default_factory=dict)
    bytes: Mapping[str, float] = field(default_factory=dict)
    down: Codes | None = None
    sent: dict[str, Codes] = field(default_factory=dict)


def _pay_for_headers(state: RoundState) -> bool:
    """Tell whether the run's budgets pay for a round.

    Raises
    ------
    UserError
        If they do not even pay for the first.
    """
    for purse in of_run(state.purses):
        headers = header_bytes(state) * sum(purse.up.values())
        least = headers + least_down_bytes(state) * purse.down + purse.fixed
        if least <= purse.left:
            continue
        if state.round == 1:
            needed = written(least, purse.unit, up=True)
            raise UserError(
                f"{purse.name} does not pay for one round: its headers alone take {needed}"
            )
        return False
    return True


def _within_run(
    state: RoundState,
    down: int | None,
    limits: Mapping[str, int],
    expected: Mapping[str, float],
) -> tuple[int | None, dict[str, int]]:
    """Return what may go down, and come up from each client, so that no budget is overspent.

    What goes down leaves the bytes that are `expected` of the updates.
    """
    header, least_down = header_bytes(state), least_down_bytes(state)
    share = 1.0
    for purse in of_run(state.purses):
        left = purse.left * (1 - ROUNDING) - purse.fixed
        kept = sum(price * max(header, expected[name]) for name, price in purse.up.items())
        if purse.down and down is not None:
            down = min(down, max(least_down, int((left - kept) / purse.down)))
    for purse in of_run(state.purses):
        left = purse.left * (1 - ROUNDING) - purse.fixed - purse.down * (down or 0)
        left -= header * sum(purse.up.values())
        more = sum(purse.up[name] * (limit - header) for name, limit in limits.items())
        if more > 0:
            share = min(share, max(0.0, left) / more)
    return down, {name: header + int(share * (limit - header)) for name, limit in limits.items()}
