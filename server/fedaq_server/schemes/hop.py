"""The scheme of a relay's hop: steps from the price that its own server found.

The joules of both hops come from one budget, so a joule has one price on both
(docs/research/theory.md). It comes down with every round, and beside it what the hop may take at
the most. Where the relay's server has no price, the steps are those of any run without a budget.
"""

from dataclasses import dataclass, replace
from math import inf

from fedaq.settings import Settings
from fedaq_server.schemes.coded import CodedBudget
from fedaq_server.schemes.loading import load_scheme
from fedaq_server.schemes.scheme import Plan, RoundState, Scheme
from fedaq_server.schemes.several import CodedBudgets


@dataclass
class PricedHop(CodedBudgets):
    """Steps from a price that is given, and a limit."""

    _most_j: float = 0.0
    _reserve_j: float = 0.0

    def told(self, price: float, most_j: float, reserve_j: float) -> None:
        """Take note of the price of the next round, and of joules.

        Parameters
        ----------
        price : float
            0 for none.
        most_j : float
            What its payloads may take.
        reserve_j : float
            What they and those of all later rounds are to take.
        """
        self._least_price, self._most_j, self._reserve_j = price, most_j, reserve_j

    def plan(self, state: RoundState) -> Plan | None:
        """Take the price; None where the limit does not pay for the round."""
        if not self._least_price:
            return super().plan(state)
        self._planned = self._bought = None
        # Clients that missed models are brought up to date in any case, as they are without relays.
        self.budget_j = self.spent_j + self._most_j + state.catch_up_j
        plan = CodedBudget.plan(self, replace(state, rounds=state.round))
        self.budget_j = inf
        if plan is not None and self._round is not None and self._round.expected.is_first:
            # The first updates are judged by all rounds, as a server's are.
            expected = replace(self._round.expected, state=state)
            self._round = replace(self._round, expected=expected, left_j=self._reserve_j)
        return plan

    @property
    def most_price(self) -> float:
        """The price above which noise drowns the updates of the last round; 0 before it."""
        return self._most_price if self.longer else 0.0

    def _unpaid(self, state: RoundState, round_j: float) -> None:
        """Leave it to the relay to say so."""


def hop_scheme(settings: Settings) -> Scheme:
    """Return the scheme that the settings name, as a relay has it for the hop to its clients."""
    scheme = load_scheme(settings)
    if not isinstance(scheme, CodedBudgets):
        return scheme
    return PricedHop(inf, uplink=scheme.uplink, downlink=scheme.downlink)
