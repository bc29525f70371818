"""FedAQ by budget where codes are packed: joules for the whole run in, every bit-length out.

(Where they are entropy-coded, as by default: `fedaq_server.schemes.coded`.)

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

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import RAW_BITS, Spread
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
from fedaq_server.schemes.scheme import (
    LEAST_STATISTICS_BITS,
    ClientState,
    Grant,
    Outcome,
    Plan,
    RoundState,
)
from fedaq_server.schemes.spending import known_spreads, left_j, rounds_paid, too_small
from fedaq_server.schemes.spreads import Array, Spreads, arrays, stacked

# docs/research/budget-constants.md: what other values do, of all down to `LARGEST_TREND`.
# A round in which quantization noise exceeds this multiple of the variance of what is sent
# is worth less than it costs. Of the values tried, three times as much lets training fall apart.
NOISE_TO_SIGNAL = 2.0
# Training undoes the noise of earlier rounds: what weighs on the final model fades with this
# time constant, as a share of all rounds.
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
    _coded: tuple[bool, ...] = ()

    def plan(self, state: RoundState) -> Plan | None:
        """Find the price, the downlink bits and every client's allowance.

        Raises
        ------
        UserError
            If the budget does not pay for the least bits in every round.
        """
        self._coded = tuple(size > 0 for size in state.spec.coded_elements)
        self.weights.see(rms_deviation(state.downlink_ranges, state.spec.coded_elements))
        down, up, sound = self._offers(state)
        now = join([down, up])
        left = left_j(self.budget_j, self.spent_j, state)
        least = np.full(len(now.bit_j), self.settings.min_bits)
        least_j = now.energy_j(least)
        if state.round == 1:
            self._refuse_below(least_j * state.rounds * (1 + ROUNDING), state.rounds)
        if left < least_j:
            return None
        if now.energy_j(sound) <= left:
            least, least_j = sound, now.energy_j(sound)
        # Fewer and better rounds, where noise would drown what all of them send.
        rounds = max(1, rounds_paid(state, left, least_j * (1 + ROUNDING)))
        self.last_round = rounds == 1
        everything = join([now, *self._forecasts(down, up, rounds, state.rounds)])
        chosen = self._allocate(
            everything, left, np.tile(least, len(everything.bit_j) // len(least))
        )
        # A round is planned at the price alone; only the last one uses the change.
        bits = chosen.bits[: len(least)] if self.last_round else self._at(now, chosen.price, least)
        tensors = len(state.spec.tensors)
        down_bits, up_bits = bits[:tensors], bits[tensors:].reshape(-1, tensors)
        _fix_statistics(down_bits, state.spec)
        _fix_statistics(up_bits, state.spec)
        pool_j = left - down.energy_j(down_bits) - least_j * (rounds - 1)
        shares_j = self._share(pool_j, up, up_bits)
        self.allowances_j = dict(zip(state.clients, shares_j.tolist(), strict=True))
        return Plan(
            Grant(tuple(down_bits.tolist())),
            dict(zip(state.clients, map(tuple, up_bits.tolist()), strict=True)),
            chosen.price,
            self.settings.clip,
            chosen.energy_j + state.catch_up_j,
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Choose the bits worth their price, within the client's allowance."""
        spreads = arrays(ranges)
        errors = error_table(spreads, clip=self.settings.clip)
        items = _uplink(errors[None], state, [client])
        allowance_j = self.allowances_j[client.name]
        least = self._sound(errors, spreads, state.squared_weights)
        if items.energy_j(least) > allowance_j:
            least = np.full(len(ranges), self.settings.min_bits)
        bits = self._at(items, plan.price, least)
        if self.last_round or items.energy_j(bits) > allowance_j:
            bits = self._allocate(items, allowance_j, least).bits
        _fix_statistics(bits, state.spec)
        return Grant(tuple(bits.tolist()))

    def learn(self, outcome: Outcome) -> None:
        """Take note of what was spent and of how wide the updates were."""
        self.spent_j += outcome.energy_j
        widths = [
            spread.deviation
            for spreads in outcome.update_ranges.values()
            for spread, is_coded in zip(spreads, self._coded, strict=True)
            if is_coded
        ]
        if widths:
            self.updates.see(float(np.mean(widths)))

    def _refuse_below(self, needed_j: float, rounds: int) -> None:
        if self.budget_j < needed_j:
            # Rounded up: who asks for what the message says must get it.
            shown = float(Context(prec=6, rounding=ROUND_UP).create_decimal(needed_j))
            raise too_small(
                self.budget_j,
                f"is too small for {self.settings.min_bits} bit per value in {rounds} rounds: "
                f"at least {shown:.6g} J are needed",
            )

    def _offers(self, state: RoundState) -> tuple[Items, Items, NDArray[np.int64]]:
        """Return what the model and the updates offer, and the fewest sound bits of all."""
        weights = arrays(state.downlink_ranges)
        updates = stacked(known_spreads(state, FIRST_UPDATE))
        down_errors = error_table(weights, clip=self.settings.clip)
        up_errors = error_table(updates, clip=self.settings.clip)
        down = make_items(
            down_errors[None],
            state.spec.coded_elements,
            coefficients=np.array([1.0]),
            j_per_bit=np.array([state.downlink_j_per_bit]),
            always_bits=_statistics_bits(
                state.spec, LEAST_STATISTICS_BITS if state.differences else RAW_BITS
            ),
        )
        up = _uplink(up_errors, state, list(state.clients.values()))
        sound = [
            self._sound(down_errors, weights, 1.0),
            self._sound(up_errors, updates, state.squared_weights).ravel(),
        ]
        return down, up, np.concatenate(sound)

    def _sound(self, errors: Array, spreads: Spreads, share: float) -> NDArray[np.int64]:
        """Return the fewest bits whose noise does not drown what is sent.

        `errors` are those of `error_table`; `share` is what is left of the noise in the mean of
        all senders: ``sum_i p_i**2``.
        """
        variance = (spreads.deviation**2)[..., None]
        drowned = (share * errors > NOISE_TO_SIGNAL * variance) & (variance > 0)
        fewest = 1 + np.count_nonzero(drowned, axis=-1)
        bits: NDArray[np.int64] = np.clip(fewest, self.settings.min_bits, self.settings.max_bits)
        return bits

    def _forecasts(self, down: Items, up: Items, rounds: int, total: int) -> list[Items]:
        """Return the items of the rounds after this one, in groups of doubling length."""
        later = []
        memory = MEMORY * total
        first = 1
        while first < rounds:
            count = min(first, rounds - first)
            middle = first + (count - 1) / 2
            weight = exp(middle / memory)
            later.append(down.forecast(count, self.weights.factor(middle), weight))
            later.append(up.forecast(count, self.updates.factor(middle), weight))
            first += count
        return later

    def _share(self, pool_j: float, up: Items, planned: NDArray[np.int64]) -> Array:
        """Share what may be spent on the uplink in proportion to what is planned."""
        least_j = up.sender_j(np.full_like(planned, self.settings.min_bits))
        more_j = up.sender_j(planned) - least_j
        spare_j, total_j = max(pool_j - sum(least_j.tolist()), 0.0), sum(more_j.tolist())
        shares = more_j / total_j if total_j > 0 else np.full_like(more_j, 1 / len(more_j))
        allowances_j: Array = least_j + spare_j * shares
        return allowances_j

    def _at(self, items: Items, price: float, least: NDArray[np.int64]) -> NDArray[np.int64]:
        return bits_at_price(items, price, min_bits=least, max_bits=self.settings.max_bits)

    def _allocate(self, items: Items, budget_j: float, least: NDArray[np.int64]) -> Allocation:
        return allocate(items, budget_j, min_bits=least, max_bits=self.settings.max_bits)


def _uplink(errors: Array, state: RoundState, clients: list[ClientState]) -> Items:
    return make_items(
        errors,
        state.spec.coded_elements,
        coefficients=np.array([client.weight**2 for client in clients]),
        j_per_bit=np.array([client.radio.uplink_j_per_bit for client in clients]),
        always_bits=_statistics_bits(state.spec, LEAST_STATISTICS_BITS),
    )


def _statistics_bits(spec: ModelSpec, width: int) -> Array:
    """Return the bits of each tensor whose width is not chosen: of the statistics."""
    bits = np.zeros(len(spec.tensors))
    if spec.has_statistics:
        bits[-1] = width * spec.elements[-1]
    return bits


def _fix_statistics(bits: NDArray[np.int64], spec: ModelSpec) -> None:
    """Give statistics the bits that they are charged for, in place; tensors are the last axis."""
    if spec.has_statistics:
        bits[..., -1] = LEAST_STATISTICS_BITS


def rms_deviation(spreads: tuple[Spread, ...], elements: tuple[int, ...]) -> float:
    """Return the root mean square of the standard deviations, over all values."""
    squares = sum(s.deviation**2 * d for s, d in zip(spreads, elements, strict=True))
    return float((squares / max(sum(elements), 1)) ** 0.5)
