"""FedAQ by budget: joules for the whole run in, every bit-length out.

Each round begins with one price of a joule (`fedaq_server.schemes.optimizer`): the one at which
this round and the forecast of those left spend what is left of the budget. The price
sets the downlink bits at once and each client's uplink bits when its ranges arrive.

Nothing is overspent: a client's grant stays within an allowance that is fixed when the
round begins, so it depends on nobody else's report, and every round leaves enough for
the least bits in all rounds to come.
"""

from dataclasses import dataclass, field
from decimal import ROUND_UP, Context
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.payload import Bits
from fedaq.codec.quantizer import Spread
from fedaq.errors import UserError
from fedaq.settings import FedaqSettings
from fedaq_server.schemes.optimizer import (
    Allocation,
    Items,
    allocate,
    bits_at_price,
    error_table,
    join,
    make_items,
)
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState

# A round in which quantization noise exceeds this multiple of the variance of what is sent
# is worth less than it costs: fewer and better rounds are run instead (docs/how-to/budget.md).
NOISE_TO_SIGNAL = 2.0
# Training undoes the noise of earlier rounds: what weighs on the final model fades with this
# time constant, as a share of all rounds (docs/how-to/budget.md).
MEMORY = 1 / 3
# Before the first update: how wide updates are, as a share of the weights.
FIRST_UPDATE = 0.5
# How a trend is smoothed, and how fast its continuation is expected to fade.
SMOOTHING = 0.5
DAMPING = 0.8
LARGEST_TREND = 0.3
# Sums of the same joules in another order differ by less.
ROUNDING = 1e-9


@dataclass
class Trend:
    """Smoothed growth of a scale from round to round, as a logarithm.

    Attributes
    ----------
    last : float
        The last scale seen, 0 before the first.
    growth : float
        Smoothed ``log(scale_k / scale_{k-1})``.
    """

    last: float = 0.0
    growth: float = 0.0

    def see(self, scale: float) -> None:
        """Take note of the scale of one more round."""
        if self.last > 0 and scale > 0:
            step = max(-LARGEST_TREND, min(LARGEST_TREND, log(scale / self.last)))
            self.growth += SMOOTHING * (step - self.growth)
        self.last = scale

    def factor(self, rounds: float) -> float:
        """Return the expected growth over the next `rounds` rounds."""
        return exp(self.growth * (1 - DAMPING**rounds) / (1 - DAMPING))


@dataclass
class Budget:
    """The scheme ``fedaq`` with a budget.

    Attributes
    ----------
    budget_j : float
        For the whole run.
    spent_j : float
        In the rounds so far.
    weights, updates : Trend
        Growth of what goes down and of what comes up.
    allowances_j : dict of str to float
        What each client may spend in this round.
    """

    budget_j: float
    settings: FedaqSettings
    spent_j: float = 0.0
    weights: Trend = field(default_factory=Trend)
    updates: Trend = field(default_factory=Trend)
    allowances_j: dict[str, float] = field(default_factory=dict)
    last_round: bool = False

    def plan(self, state: RoundState) -> Plan | None:
        """Find the price, the downlink bits and every client's allowance.

        Raises
        ------
        UserError
            If the budget does not pay for the least bits in every round.
        """
        self.weights.see(rms_deviation(state.downlink_ranges, state.spec.elements))
        down = self._downlink(state)
        spreads = {name: _known(client, state) for name, client in state.clients.items()}
        up = {
            name: self._uplink(state, client, spreads[name])
            for name, client in state.clients.items()
        }
        now = join([down, *up.values()])
        left_j = self.budget_j - self.spent_j - state.catch_up_j
        least = np.full(len(now.bit_j), self.settings.min_bits)
        least_j = now.energy_j(least)
        if state.round == 1:
            self._refuse_below(least_j * state.rounds * (1 + ROUNDING), state.rounds)
        if left_j < least_j:
            return None
        sound = np.concatenate(
            [
                self._sound(state.downlink_ranges, 1.0),
                *(self._sound(spreads[name], _share_squared(state)) for name in up),
            ]
        )
        if now.energy_j(sound) <= left_j:
            least, least_j = sound, now.energy_j(sound)
        # Fewer and better rounds, where noise would drown what all of them send.
        affordable = max(1, int(left_j / (least_j * (1 + ROUNDING))))
        rounds = min(state.rounds - state.round + 1, affordable)
        self.last_round = rounds == 1
        later = self._forecasts(down, up, rounds, state.rounds)
        everything = join([now, *later])
        chosen = self._allocate(
            everything, left_j, np.tile(least, len(everything.bit_j) // len(least))
        )
        # A round is planned at the price alone; only the last one uses the change.
        bits = chosen.bits[: len(least)] if self.last_round else self._at(now, chosen.price, least)
        tensors = len(state.spec.tensors)
        down_bits, up_bits = bits[:tensors], bits[tensors:].reshape(-1, tensors)
        planned = dict(zip(up, up_bits, strict=True))
        pool_j = left_j - down.energy_j(down_bits) - least_j * (rounds - 1)
        self.allowances_j = self._share(pool_j, up, planned)
        return Plan(
            Grant(_bits(down_bits)),
            {name: _bits(row) for name, row in planned.items()},
            chosen.price,
            self.settings.clip,
            chosen.energy_j + state.catch_up_j,
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Choose the bits worth their price, within the client's allowance."""
        items = self._uplink(state, client, ranges)
        allowance_j = self.allowances_j[client.name]
        least = self._sound(ranges, _share_squared(state))
        if items.energy_j(least) > allowance_j:
            least = np.full(len(ranges), self.settings.min_bits)
        bits = self._at(items, plan.price, least)
        if self.last_round or items.energy_j(bits) > allowance_j:
            bits = self._allocate(items, allowance_j, least).bits
        return Grant(_bits(bits))

    def learn(self, outcome: Outcome) -> None:
        """Take note of what was spent and of how wide the updates were."""
        self.spent_j += outcome.energy_j
        widths = [
            spread.deviation for spreads in outcome.update_ranges.values() for spread in spreads
        ]
        if widths:
            self.updates.see(float(np.mean(widths)))

    def _refuse_below(self, needed_j: float, rounds: int) -> None:
        if self.budget_j < needed_j:
            # Rounded up: who asks for what the message says must get it.
            shown = float(Context(prec=6, rounding=ROUND_UP).create_decimal(needed_j))
            raise UserError(
                f"energy.budget_j = {self.budget_j:.6g} J is too small for "
                f"{self.settings.min_bits} bit per value in {rounds} rounds: at least "
                f"{shown:.6g} J are needed"
            )

    def _downlink(self, state: RoundState) -> Items:
        return make_items(
            state.downlink_ranges,
            state.spec.elements,
            coefficient=1.0,
            j_per_bit=state.downlink_j_per_bit,
            clip=self.settings.clip,
        )

    def _uplink(self, state: RoundState, client: ClientState, spreads: tuple[Spread, ...]) -> Items:
        return make_items(
            spreads,
            state.spec.elements,
            coefficient=client.weight**2,
            j_per_bit=client.radio.uplink_j_per_bit,
            clip=self.settings.clip,
        )

    def _sound(self, spreads: tuple[Spread, ...], share: float) -> NDArray[np.int64]:
        """Return the fewest bits whose noise does not drown what is sent.

        `share` is what is left of the noise in the mean of all senders: ``sum_i p_i**2``.
        """
        variance = np.array([spread.deviation**2 for spread in spreads])[:, None]
        noise = share * error_table(spreads, clip=self.settings.clip)
        drowned = (noise > NOISE_TO_SIGNAL * variance) & (variance > 0)
        fewest = 1 + np.count_nonzero(drowned, axis=1)
        bits: NDArray[np.int64] = np.clip(fewest, self.settings.min_bits, self.settings.max_bits)
        return bits

    def _forecasts(self, down: Items, up: dict[str, Items], rounds: int, total: int) -> list[Items]:
        """Return the items of the rounds after this one, in groups of doubling length."""
        later = []
        memory = MEMORY * total
        first, all_up = 1, join(list(up.values()))
        while first < rounds:
            count = min(first, rounds - first)
            middle = first + (count - 1) / 2
            weight = exp(middle / memory)
            later.append(down.forecast(count, self.weights.factor(middle), weight))
            later.append(all_up.forecast(count, self.updates.factor(middle), weight))
            first += count
        return later

    def _share(
        self, pool_j: float, up: dict[str, Items], planned: dict[str, NDArray[np.int64]]
    ) -> dict[str, float]:
        """Share what may be spent on the uplink in proportion to what is planned."""
        least = {name: self._least_j(items) for name, items in up.items()}
        more = {name: items.energy_j(planned[name]) - least[name] for name, items in up.items()}
        spare_j = pool_j - sum(least.values())
        total = sum(more.values())
        return {
            name: least[name]
            + max(spare_j, 0.0) * (more[name] / total if total > 0 else 1 / len(up))
            for name in up
        }

    def _least_j(self, items: Items) -> float:
        return items.energy_j(np.full(len(items.bit_j), self.settings.min_bits))

    def _at(self, items: Items, price: float, least: NDArray[np.int64]) -> NDArray[np.int64]:
        return bits_at_price(items, price, min_bits=least, max_bits=self.settings.max_bits)

    def _allocate(self, items: Items, budget_j: float, least: NDArray[np.int64]) -> Allocation:
        return allocate(items, budget_j, min_bits=least, max_bits=self.settings.max_bits)


def _share_squared(state: RoundState) -> float:
    return sum(client.weight**2 for client in state.clients.values())


def _known(client: ClientState, state: RoundState) -> tuple[Spread, ...]:
    """Return the spreads of the client's last update, or a guess before its first."""
    if client.ranges is not None:
        return client.ranges
    seen = [other.ranges for other in state.clients.values() if other.ranges is not None]
    if seen:
        return seen[0]
    return tuple(
        Spread(
            spread.lo * FIRST_UPDATE,
            spread.hi * FIRST_UPDATE,
            spread.mean * FIRST_UPDATE,
            spread.deviation * FIRST_UPDATE,
        )
        for spread in state.first_ranges
    )


def rms_deviation(spreads: tuple[Spread, ...], elements: tuple[int, ...]) -> float:
    """Return the root mean square of the standard deviations, over all values."""
    squares = sum(s.deviation**2 * d for s, d in zip(spreads, elements, strict=True))
    return float((squares / sum(elements)) ** 0.5)


def _bits(row: NDArray[np.int64]) -> Bits:
    return tuple(int(b) for b in row)
