"""FedAQ with several budgets: joules, bytes and money, of the run and of its devices.

Whatever they are, a byte has one effective price for each sender (`fedaq_server.schemes.prices`).
So a round with many budgets is planned as one with a single budget and other radios: those whose
joules per bit are these prices. What cannot be overspent is sure by limits, as there.

A budget of the run is to be spent. One of a device is a limit: a device that could pay for more
takes the steps of a run without a budget.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import exp, inf, isfinite, log

import numpy as np

from fedaq.codec.quantizer import Spread
from fedaq.energy.budgets import JOULES, written
from fedaq.energy.cost import RadioCost
from fedaq.errors import UserError
from fedaq_server.accounts import ROUNDING, Purse
from fedaq_server.schemes.code_lengths import sample_bits, tensors
from fedaq_server.schemes.coded import (
    DROWNED,
    FIRST_SHARE,
    FIRST_UPDATE,
    SLACK,
    CodedBudget,
    CodedResolution,
    _bisect,
    _Expected,
    _expected,
    _first_bits,
    _foreseen,
    _smoothed,
    downlink_grant,
    uplink_grant,
)
from fedaq_server.schemes.optimizer import resolution, resolutions
from fedaq_server.schemes.prices import Bounds, Demand, OwnShares, Prices, RunShares, prices
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState
from fedaq_server.schemes.spending import header_bytes, known_spreads, least_down_bytes
from fedaq_server.schemes.spreads import Array, arrays, stacked

# A budget of the run is spent, however little finer steps bring: a thousandth of the usual ones.
FINEST = 1e-3
# A device may take so many times the usual step before it rather sends fewer updates.
COARSER = 2.0
# Prices of the broadcast are told apart to half a hundredth.
PLACES = 100
# Beyond this many root mean squares nothing is known of what a step does.
COARSEST = 2.0**9
_BISECTIONS = 40


@dataclass
class CodedBudgets(CodedBudget):
    """The scheme ``fedaq`` with entropy-coded payloads and any budgets, also none.

    Attributes
    ----------
    budget_j : float
        Of the run; infinite for any number.
    uplink, downlink : float
        Steps where no budget asks for others, in the unit of the weights.
    """

    uplink: float = 0.0
    downlink: float = 0.0
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
        if all(purse.unit == JOULES and not purse.client for purse in state.purses):
            return super().plan(state) if isfinite(self.budget_j) else self._free.plan(state)
        if not _pay_for_headers(state):
            return None
        expected = _expected(state, stacked(known_spreads(state, FIRST_UPDATE)), self.up)
        round_ = _BudgetedRound(state, expected, self._free)
        found = round_.prices()
        if state.round > 1 and round_.nobody_pays(found):
            return None
        if _shared(state.purses):
            return self._plan_run(state, round_, found)
        return self._plan_devices(state, round_, found)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give the client the step of its price, and its limit."""
        planned = self._planned
        if planned is not None:
            priced = planned.state.clients[client.name]
            granted = planned.inner.grant(planned.state, planned.plan, priced, ranges)
            return replace(granted, limit_bytes=planned.limits[client.name])
        if isfinite(self.budget_j):
            return super().grant(state, plan, client, ranges)
        if self._bought is None:
            return self._free.grant(state, plan, client, ranges)
        step = self._bought.steps[client.name]
        if not self.up:
            # Nothing was known of the updates, so nothing of the price. The bytes are.
            sent = tensors(arrays(ranges), state.spec.elements, nearest=False)
            bits = 8 * self._bought.bytes[client.name]
            step = max(self.uplink, _bisect(lambda step: float(_first_bits(sent, step)), bits))
        self._bought.granted[client.name] = step
        limit = header_bytes(state) + int(SLACK * self._bought.bytes[client.name])
        limited = {purse.client for purse in state.purses}
        chosen = uplink_grant(state, client, ranges, step)
        return replace(chosen, limit_bytes=limit if client.name in limited else None)

    def learn(self, outcome: Outcome) -> None:
        """Take note of what was spent, and of how long codes were."""
        if self._planned is not None:
            self._round = self._planned.inner._round
        elif not isfinite(self.budget_j):
            self.spent_j += outcome.energy_j
            steps = {} if self._bought is None else self._bought.granted
            for name, taken in outcome.uplink_bytes.items():
                now = taken * steps.get(name, self.uplink)
                self.up[name] = _smoothed(self.up.get(name, 0.0), now)
            return
        super().learn(outcome)

    @property
    def _free(self) -> CodedResolution:
        return CodedResolution(self.uplink, self.downlink)

    def _plan_run(self, state: RoundState, round_: "_BudgetedRound", found: Prices) -> Plan | None:
        """Plan a round whose budgets, the run's among them, are to be spent."""
        inner, priced = self._in_one_currency(state, found)
        plan = inner.plan(priced)
        if plan is None:
            return None
        assert inner._round is not None
        expected = dict(zip(state.clients, round_.up_bytes(found.up).tolist(), strict=True))
        down = plan.downlink.limit_bytes
        limit, limits = _within_run(state, down, inner._round.limits, expected)
        self._planned = _Planned(inner, priced, plan, limits)
        return replace(
            plan,
            downlink=replace(plan.downlink, limit_bytes=limit),
            price=plan.price * round_.price_of_a_joule(found),
            forecast_j=round_.forecast_j(found),
            least_up_bytes=round_.least_up_bytes(),
        )

    def _plan_devices(self, state: RoundState, round_: "_BudgetedRound", found: Prices) -> Plan:
        """Plan a round that devices alone limit."""
        steps = round_.steps(found)
        start = round_.expected.start_step if round_.is_first else 0.0
        names = list(state.clients)
        self._bought = _Bought(
            dict(zip(names, steps.tolist(), strict=True)),
            dict(zip(names, round_.up_bytes(found.up).tolist(), strict=True)),
        )
        spreads = stacked(known_spreads(state, FIRST_UPDATE))
        return Plan(
            downlink_grant(state, start or resolution(1.0, found.down / 8, 1.0)),
            _foreseen(state, spreads, steps),
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
            state, clients=clients, downlink_j_per_bit=found.down / 8, catch_up_j=0.0, purses=()
        )
        known = {f.name: getattr(self, f.name) for f in fields(CodedBudget) if f.name[0] != "_"}
        expected = _expected(priced, stacked(known_spreads(state, FIRST_UPDATE)), self.up)
        headers = header_bytes(state) * float(np.sum(found.up))
        headers += least_down_bytes(state) * found.down
        rounds = state.rounds - state.round + 1
        # As much as makes these very prices, at which all budgets are kept.
        budget = rounds * max(expected.round_j(1.0), headers * (1 + 1e-9)) + expected.start_j()
        return CodedBudget(**known | {"budget_j": budget, "spent_j": 0.0}), priced


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
    """What devices buy in a round that they alone limit.

    Attributes
    ----------
    steps, bytes : mapping of str to float
        Of each update, as they are expected.
    granted : dict of str to float
        Steps of the grants.
    """

    steps: Mapping[str, float]
    bytes: Mapping[str, float]
    granted: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _BudgetedRound:
    """What a round takes at prices of bytes, and what its budgets ask of those."""

    state: RoundState
    expected: _Expected
    free: CodedResolution
    _lengths: dict[int, float] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether nothing goes down yet, and what will is guessed from the uplink."""
        return self.expected.usual is None and self.state.differences

    def prices(self) -> Prices:
        """Return the prices at which this round takes its share of every budget."""
        run, own = _shared(self.state.purses), self._own()
        return prices(
            Demand(self.up_bytes, self.down_bytes), self._run_shares(run), self._own_shares(own),
            self._bounds(run),
        )  # fmt: skip

    def steps(self, found: Prices) -> Array:
        """Return the quantization step of each update."""
        return self._steps_at(found.up)

    def _steps_at(self, price: Array) -> Array:
        return resolutions(1.0, price / 8, self.expected.squares)

    def up_bytes(self, price: Array) -> Array:
        """Return the bytes of each update."""
        steps = self._steps_at(price)
        if self.expected.usual is None:
            return _first_bits(self.expected.first, steps[:, None]) / 8
        return np.maximum(self.expected.usual / steps, header_bytes(self.state))

    def down_bytes(self, price: float) -> float:
        """Return the bytes of the broadcast; of the first there is none to pay for."""
        if self.is_first:
            return 0.0
        # It is asked for again and again, and a sample is large.
        place = round(PLACES * log(price))
        known = self._lengths.get(place)
        if known is None:
            state, step = self.state, resolution(1.0, exp(place / PLACES) / 8, 1.0)
            known = self._lengths[place] = (
                sample_bits(
                    self.expected.samples,
                    state.spec.elements,
                    step,
                    nearest=state.differences,
                )
                / 8
            )
        return known

    def least_up_bytes(self) -> dict[str, int]:
        """Return what updates take that are no mere noise, of clients with a budget."""
        if self.expected.usual is None:
            return {}
        bytes_ = np.ceil(self.up_bytes(self._most_up())).astype(np.int64).tolist()
        owners = {purse.client for purse in self._own()}
        return {
            name: least
            for name, least in zip(self.state.clients, bytes_, strict=True)
            if name in owners
        }

    def nobody_pays(self, found: Prices) -> bool:
        """Tell whether all clients are empty, as far as can be seen before anything is coded."""
        down, least = self.down_bytes(found.down), self.least_up_bytes()
        empty = {
            purse.client
            for purse in self._own()
            if purse.fixed + purse.down * down + purse.up[purse.client] * least.get(purse.client, 0)
            > purse.left
        }
        return empty == self.state.clients.keys()

    def price_of_a_joule(self, found: Prices) -> float:
        """Return the multiplier of the run's joules, 0 where they are no budget."""
        run = _shared(self.state.purses)
        of_joules = (m for p, m in zip(run, found.run.tolist(), strict=True) if p.unit == JOULES)
        return next(of_joules, 0.0)

    def forecast_j(self, found: Prices) -> float:
        """Return the joules that this round and all later ones are expected to take."""
        state, up = self.state, self.up_bytes(found.up)
        down = self.down_bytes(found.down)
        if self.is_first:
            down = (1 / FIRST_SHARE - 1) * float(np.mean(up))
        round_j = 8 * float(np.sum(self.expected.j_per_bit * up))
        round_j += 8 * state.downlink_j_per_bit * down
        left = [p.left for p in _shared(state.purses) if p.unit == JOULES]
        return min((state.rounds - state.round + 1) * round_j + state.catch_up_j, *left, inf)

    def _own(self) -> list[Purse]:
        return [purse for purse in self.state.purses if purse.client]

    def _run_shares(self, purses: list[Purse]) -> RunShares:
        start = self._start_bytes()
        up = np.array([[p.up[name] for name in self.state.clients] for p in purses])
        up = up.reshape(len(purses), len(self.state.clients))
        down = np.array([purse.down for purse in purses])
        if self.is_first:
            up += (1 / FIRST_SHARE - 1) * down[:, None] / len(self.state.clients)
        share = [(p.left - p.fixed - p.down * start) / p.rounds for p in purses]
        return RunShares(up, down, np.array(share))

    def _own_shares(self, purses: list[Purse]) -> OwnShares:
        start, places = self._start_bytes(), {name: i for i, name in enumerate(self.state.clients)}
        up = np.array([purse.up[purse.client] for purse in purses])
        down = np.array([purse.down for purse in purses])
        if self.is_first:
            up += (1 / FIRST_SHARE - 1) * down
        share = [(p.left - p.fixed - p.down * start) / p.rounds for p in purses]
        sender = np.array([places[purse.client] for purse in purses], np.int64)
        return OwnShares(sender, up, down, np.maximum(np.array(share), 0.0))

    def _start_bytes(self) -> float:
        step = self.expected.start_step if self.is_first else 0.0
        if not step:
            return 0.0
        return sample_bits(self.expected.samples, self.state.spec.elements, step, nearest=True) / 8

    def _bounds(self, run: list[Purse]) -> Bounds:
        finest_up = FINEST if run else 1.0
        finest_down = FINEST if any(purse.down for purse in run) else 1.0
        return Bounds(
            _price_of(self.free.uplink * finest_up, self.expected.squares),
            self._most_up(),
            float(_price_of(self.free.downlink * finest_down, np.array(1.0))),
        )

    def _most_up(self) -> Array:
        """Return the prices above which each update is drowned in its own noise."""
        expected = self.expected
        weights = np.array([client.weight for client in self.state.clients.values()])
        power = np.sum(expected.power, axis=1)
        largest = np.log(COARSEST * np.maximum(np.max(expected.updates.rms, axis=1), 1e-30))

        def drowned(step: Array) -> Array:
            noise = np.sum(expected.power * expected.updates.errors(step[:, None]), axis=1)
            found: Array = weights * noise > DROWNED * power
            return found

        low, high = largest - 60.0, largest
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            over = drowned(np.exp(middle))
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        usual = _price_of(COARSER * self.free.uplink, expected.squares)
        return np.maximum(_price_of(np.exp(high), expected.squares), usual)


def _price_of(step: Array | float, squares: Array) -> Array:
    """Return the price of a byte at which a step is taken: the inverse of `resolutions`."""
    price: Array = 8 * np.square(step) * (2 * np.log(2) * squares / 4)
    return price


def _shared(purses: tuple[Purse, ...]) -> list[Purse]:
    """Return the budgets of the run."""
    return [purse for purse in purses if not purse.client]


def _pay_for_headers(state: RoundState) -> bool:
    """Tell whether the run's budgets pay for a round.

    Raises
    ------
    UserError
        If they do not even pay for the first.
    """
    for purse in _shared(state.purses):
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
    for purse in _shared(state.purses):
        left = purse.left * (1 - ROUNDING) - purse.fixed
        kept = sum(price * max(header, expected[name]) for name, price in purse.up.items())
        if purse.down and down is not None:
            down = min(down, max(least_down, int((left - kept) / purse.down)))
    for purse in _shared(state.purses):
        left = purse.left * (1 - ROUNDING) - purse.fixed - purse.down * (down or 0)
        left -= header * sum(purse.up.values())
        more = sum(purse.up[name] * (limit - header) for name, limit in limits.items())
        if more > 0:
            share = min(share, max(0.0, left) / more)
    return down, {name: header + int(share * (limit - header)) for name, limit in limits.items()}
