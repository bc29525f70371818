"""A round of steps by a price: what was decided when it began, and what its transfers may take."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedaq.codec.quantizer import MAX_BITS, RAW_BITS
from fedaq_server.schemes.code_lengths import Codes
from fedaq_server.schemes.expected import (
    FIRST_SHARE,
    Expected,
    downlink_step,
    step_for,
    total,
)
from fedaq_server.schemes.scheme import ClientState
from fedaq_server.schemes.spending import LAST_SHARE, ROUNDED, header_bytes, least_down_bytes
from fedaq_server.schemes.step_grants import Updates

# docs/research/budget-constants.md: what other values do.
# A transfer may exceed so many times what was expected of it, while the budget lasts,
# before its limit acts.
SLACK = 3.0
# The step of the last round may be so many times the coarsest that is bearable.
WORST_STEP = 2.0
# Of a bit: less is nothing.
_LEAST_J = 1e-300


@dataclass(frozen=True)
class Ahead:
    """What is expected of this round and of those after it.

    Attributes
    ----------
    expected : Expected
    owed_j : float
        What clients that are not drawn lack by now, as far as they come back.
    dearest : float
        The price above which noise would drown what is sent.
    worst : float
        The same, of a last round.
    coarsest : float
        As `CodedBudget.coarsest`.
    round_j : float
        What a round takes at the dearest price, also of those who come back.
    rounds : int
        That are worth it.
    """

    expected: Expected
    owed_j: float
    dearest: float
    worst: float
    coarsest: float
    round_j: float
    rounds: int


@dataclass(frozen=True)
class PlannedRound:
    """What was decided when a round began, and while it went on.

    Attributes
    ----------
    is_last : bool
        Whether all that is left is to be spent.
    coarsest : float
        As `CodedBudget.coarsest`.
    absent_j_per_bit : float
        As `RoundState.absent_j_per_bit`, whether they come back or not.
    left_j : float
        What is left for this round and all later ones.
    shares_j, limits_j : mapping of str to float
        What each update is expected to take, and what it may take.
    sent : dict of str to Codes
        What was granted.
    """

    expected: Expected
    is_last: bool
    price: float
    coarsest: float
    absent_j_per_bit: float
    left_j: float
    shares_j: Mapping[str, float]
    limits_j: Mapping[str, float]
    sent: dict[str, Codes] = field(default_factory=dict)

    def limit_bytes(self, client: ClientState) -> int:
        """Return what an update may take."""
        limit = bytes_for(self.limits_j[client.name], client.radio.uplink_j_per_bit)
        return header_bytes(self.expected.state) + limit

    def later_rounds(self, client: ClientState, sent: Updates, coarsest: float) -> float:
        """Return how many more rounds the budget pays for, if updates are like this first one.

        `coarsest` is the step at which noise all but drowns it.
        """
        first, later = self._takes()
        least_j = client.radio.uplink_j_per_bit * float(sent.codes(coarsest).total(1.0))
        return max(self._share_j(client) / max(least_j, _LEAST_J) - first, 0.0) / later

    def first_step(self, client: ClientState, sent: Updates, coarsest: float) -> float:
        """Return the step of an update where none was seen before.

        It is as fine as the budget of the whole run makes it, if all updates are like this one.
        """
        state, (first, later) = self.expected.state, self._takes()
        worth = self.later_rounds(client, sent, coarsest)
        rounds = min(state.rounds - state.round, int(worth + ROUNDED))
        share_j = self._share_j(client) / (first + rounds * later)
        if rounds == 0:
            share_j *= LAST_SHARE
        return min(affordable_step(client, sent, share_j, 1.0), WORST_STEP * coarsest)

    def _takes(self) -> tuple[float, float]:
        """Return what a first round and a later one take, beside a first one's updates."""
        if self.expected.state.differences:
            return 1.0, 1 + (1 / FIRST_SHARE - 1) * self.expected.copies
        down_j = self.expected.down_j(self.price) * self.expected.copies
        each = 1 + down_j / max(sum(self.shares_j.values()), _LEAST_J)
        return each, each

    def _share_j(self, client: ClientState) -> float:
        return self.shares_j[client.name] / sum(self.shares_j.values()) * self.left_j

    def down_codes(self) -> Codes | None:
        """Return what went down; None if nothing did, or a start."""
        state = self.expected.state
        if self.expected.is_first and state.differences:
            return None
        return self.expected.down_codes(downlink_step(state, self.price))


def affordable_step(client: ClientState, sent: Updates, joules: float, longer: float) -> float:
    """Return the step with which an update takes so many joules."""
    return step_for(sent, joules / max(client.radio.uplink_j_per_bit, _LEAST_J), longer)


def limits(now: Expected, share_j: float, spare_j: float, price: float) -> tuple[float, float]:
    """Return what may go down, in joules, and how many times what is expected may come up.

    Every sender can pay for its headers, and nobody for more than what is left then: `spare_j`
    joules. `share_j` is what the round is to take.
    """
    state, up_j = now.state, total(now.up_j(price))
    header_j = 8 * least_down_bytes(state) * state.downlink_j_per_bit
    if now.is_first and state.differences:
        # But for a start, nothing goes down. Updates may take all, if there is to be one round.
        down_j = min(SLACK * now.start_j(), spare_j)
        return header_j + down_j, (spare_j - down_j) / up_j
    # More than it can take is of no use to what goes down, and updates would lack it.
    widest = MAX_BITS if state.differences else RAW_BITS
    most_j = widest * state.spec.parameters * state.downlink_j_per_bit
    down_j = max(0.0, min(max(SLACK * now.down_j(price), share_j), spare_j - up_j, most_j))
    spare_j -= down_j
    return header_j + down_j, min(max(SLACK, share_j / up_j), spare_j / up_j)


def bytes_for(joules: float, j_per_bit: float) -> int:
    """Return how many bytes the joules pay for."""
    return int(joules / (8 * j_per_bit)) if j_per_bit > 0 else 2**62
