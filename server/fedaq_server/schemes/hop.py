"""The scheme of a relay's hop: steps from the price that its own server found.

The joules of both hops come from one budget, so a joule has one price on both
(docs/research/theory.md). It comes down with every round, and beside it what the hop may take at
the most. Where the relay's server has no price, the steps are settings.
"""

from dataclasses import dataclass, replace
from math import inf

from fedaq.codec.quantizer import Spread
from fedaq.settings import Settings
from fedaq_server.schemes.coded import CodedBudget, CodedResolution
from fedaq_server.schemes.loading import load_scheme
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState, Scheme
from fedaq_server.schemes.several import CodedBudgets


@dataclass
class PricedHop(CodedBudget):
    """Steps from a price that is given, and a limit.

    Attributes
    ----------
    uplink, downlink : float
        Steps of rounds that have no price, in the unit of the weights.
    """

    uplink: float = 0.0
    downlink: float = 0.0
    _most_j: float = 0.0

    def told(self, price: float, most_j: float) -> None:
        """Take note of the price of the next round, and of what its payloads may take."""
        self._least_price, self._most_j = price, most_j

    def plan(self, state: RoundState) -> Plan | None:
        """Take the price; None where the limit does not pay for the round."""
        self._round = None
        if not self._least_price:
            return self._free.plan(state)
        # Clients that missed models are brought up to date in any case, as they are without relays.
        self.budget_j = self.spent_j + self._most_j + state.catch_up_j
        return super().plan(replace(state, rounds=state.round))

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give the client the step of the price, and its limit."""
        if self._round is None:
            return self._free.grant(state, plan, client, ranges)
        return super().grant(state, plan, client, ranges)

    def learn(self, outcome: Outcome) -> None:
        """Take note of what was spent, and of how long codes were."""
        if self._round is None:
            self.spent_j += outcome.energy_j
        else:
            super().learn(outcome)

    @property
    def most_price(self) -> float:
        """The price above which noise drowns the updates of the last round; 0 before it."""
        return self._dearest if self.up else 0.0

    @property
    def _free(self) -> CodedResolution:
        return CodedResolution(self.uplink, self.downlink)


def hop_scheme(settings: Settings) -> Scheme:
    """Return the scheme that the settings name, as a relay has it for the hop to its clients."""
    scheme = load_scheme(settings)
    if not isinstance(scheme, CodedBudgets):
        return scheme
    return PricedHop(inf, uplink=scheme.uplink, downlink=scheme.downlink)
