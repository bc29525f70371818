"""A round with budgets of several kinds, as its prices see it: what it takes, what it may take."""

from dataclasses import dataclass, field
from math import exp, inf, log

import numpy as np

from fedaq.energy.budgets import JOULES
from fedaq_server.accounts import Purse
from fedaq_server.schemes.code_lengths import COARSEST
from fedaq_server.schemes.expected import FIRST_SHARE, Expected, start_step
from fedaq_server.schemes.optimizer import resolution, resolutions
from fedaq_server.schemes.prices import Bounds, Demand, OwnShares, Prices, RunShares, prices
from fedaq_server.schemes.scheme import RoundState
from fedaq_server.schemes.spending import round_share
from fedaq_server.schemes.spreads import Array

# A budget of the run is spent, however little finer steps bring: a thousandth of the usual ones.
FINEST = 1e-3
# A device may take so many times the usual step before it rather sends fewer updates.
COARSER = 2.0
# Prices of the broadcast are told apart to half a hundredth.
PLACES = 100
_BISECTIONS = 40


@dataclass(frozen=True)
class BudgetedRound:
    """What a round takes at prices of bytes, and what its budgets ask of those.

    Attributes
    ----------
    state : RoundState
    expected : Expected
    usual : tuple of float
        Steps of updates and of what goes down where no budget asks for others.
    """

    state: RoundState
    expected: Expected
    usual: tuple[float, float]
    _lengths: dict[int, float] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether nothing goes down yet, and what will is guessed from the uplink."""
        return self.expected.is_first and self.state.differences

    def prices(self) -> Prices:
        """Return the prices at which this round takes its share of every budget."""
        run, own = of_run(self.state.purses), self._own()
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
        codes = self.expected.updates.codes(self._steps_at(price)[:, None])
        bytes_: Array = codes.total(self.expected.longer) / 8
        return bytes_

    def down_bytes(self, price: float) -> float:
        """Return the bytes of the broadcast; of the first there is none to pay for."""
        if self.is_first:
            return 0.0
        # It is asked for again and again, and a sample is large.
        place = round(PLACES * log(price))
        known = self._lengths.get(place)
        if known is None:
            step = resolution(1.0, exp(place / PLACES) / 8, self.state.share)
            known = self._lengths[place] = self.expected.down_bits(step) / 8
        return known

    def least_up_bytes(self) -> dict[str, int]:
        """Return what updates take that are no mere noise, of clients with a budget."""
        if self.expected.is_first:
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
        run = of_run(self.state.purses)
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
        left = [p.left for p in of_run(state.purses) if p.unit == JOULES]
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
        share = [
            round_share(p.left - p.fixed - p.down * start, p.rounds, self.state) for p in purses
        ]
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
        step = start_step(self.state) if self.is_first else 0.0
        return self.expected.down_bits(step) / 8 if step else 0.0

    def _bounds(self, run: list[Purse]) -> Bounds:
        finest_up = FINEST if run else 1.0
        finest_down = FINEST if any(purse.down for purse in run) else 1.0
        return Bounds(
            _price_of(self.usual[0] * finest_up, self.expected.squares),
            self._most_up(),
            float(_price_of(self.usual[1] * finest_down, np.array(self.state.share))),
        )

    def _most_up(self) -> Array:
        """Return the prices above which each update is drowned in its own noise."""
        expected = self.expected
        sent = expected.updates
        most = expected.tolerance * np.sum(sent.weights * sent.power, axis=1)
        largest = np.log(COARSEST * np.maximum(np.max(sent.sent.rms, axis=1), 1e-30))

        def drowned(step: Array) -> Array:
            found: Array = sent.harm(step[:, None], expected.tolerance) > most
            return found

        low, high = largest - 60.0, largest
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            over = drowned(np.exp(middle))
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        usual = _price_of(COARSER * self.usual[0], expected.squares)
        return np.maximum(_price_of(np.exp(high), expected.squares), usual)


def _price_of(step: Array | float, squares: Array) -> Array:
    """Return the price of a byte at which a step is taken: the inverse of `resolutions`."""
    price: Array = 8 * np.square(step) * (2 * np.log(2) * squares / 4)
    return price


def of_run(purses: tuple[Purse, ...]) -> list[Purse]:
    """Return the budgets of the run."""
    return [purse for purse in purses if not purse.client]
