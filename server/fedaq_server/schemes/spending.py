"""What both budget schemes ask: what is left, for how many rounds, and what clients will send."""

from math import exp

from fedaq.codec.payload import ZERO
from fedaq.codec.quantizer import RAW_BITS, Spread
from fedaq.errors import UserError
from fedaq_server.schemes.scheme import RoundState

# Rounds are run if so little is missing of what they should take.
ROUNDED = 0.1
# Share of the last round's joules to be planned; the rest is for lengths expected too short.
LAST_SHARE = 0.98
# Over a whole run what a round takes grows by the exponential of this.
RISE = 1.0


def left_j(budget_j: float, spent_j: float, state: RoundState) -> float:
    """Return the joules left for the payloads of this round and of all later ones."""
    return budget_j - spent_j - state.catch_up_j


def rounds_paid(state: RoundState, left_j: float, round_j: float) -> int:
    """Return how many of the rounds left are paid for, where each takes `round_j` joules."""
    return int(min(state.rounds - state.round + 1, left_j / round_j))


def rounds_worth(state: RoundState, left_j: float, round_j: float) -> int:
    """Return how many of the rounds left are run, where each should take `round_j` joules.

    The last one should take twice as much: no other undoes its noise.
    """
    return int(min(state.rounds - state.round + 1, left_j / round_j + ROUNDED - 1))


def round_share(left: float, rounds: float, state: RoundState) -> float:
    """Return what a round takes of what is left for so many.

    The noise of a round fades in those after it, so later ones take more; the last, which no other
    follows, twice as much again.
    """
    return LAST_SHARE * left if rounds <= 1 else left / _rounds_like_this(rounds, state)


def round_budget(share: float, rounds: int, state: RoundState) -> float:
    """Return what must be left for so many rounds, that this one takes a share: the inverse."""
    return share / LAST_SHARE if rounds <= 1 else share * _rounds_like_this(rounds, state)


def _rounds_like_this(rounds: float, state: RoundState) -> float:
    """Return how many times what this round takes all that are left take."""
    growth = exp(RISE / state.rounds)
    last: float = growth ** (rounds - 1)
    return (growth * last - 1) / (growth - 1) + last


def too_small(budget_j: float, why: str) -> UserError:
    """Return the refusal of a budget; `why` goes on after it, and names the joules needed."""
    return UserError(f"energy.budget_j = {budget_j:.6g} J {why}")


def known_spreads(state: RoundState, first_update: float) -> list[tuple[Spread, ...]]:
    """Return the spreads that every client's update is expected to have, in their order.

    Those of its last update; of a client without one, those of the first that has one; if
    there is none, those of the weights with which the run began, times `first_update`.
    """
    known = [client.ranges for client in state.clients.values()]
    guess = next(filter(None, known), None) or _scaled(state.first_ranges, first_update)
    return [ranges or guess for ranges in known]


def _scaled(spreads: tuple[Spread, ...], factor: float) -> tuple[Spread, ...]:
    return tuple(
        Spread(
            factor * spread.lo,
            factor * spread.hi,
            factor * spread.mean,
            factor * spread.deviation,
            factor * spread.magnitude,
        )
        for spread in spreads
    )


def least_j(state: RoundState) -> float:
    """Return the joules of a round in which nothing but headers is sent."""
    senders = [client.radio.uplink_j_per_bit for client in state.clients.values()]
    up_j = 8 * header_bytes(state) * sum(senders)
    return 8 * least_down_bytes(state) * state.downlink_j_per_bit + up_j


def header_bytes(state: RoundState) -> int:
    """Return the bytes of a transfer in which nothing but headers is sent."""
    return len(state.spec.tensors) * ZERO.header_bytes


def least_down_bytes(state: RoundState) -> int:
    """Return the bytes that go down at the least: headers, and statistics where they are raw."""
    own = 0 if state.differences else state.spec.parameters - state.spec.statistics.start
    return header_bytes(state) + RAW_BITS // 8 * own
