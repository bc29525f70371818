"""FedAQ where payloads are entropy-coded: a price of a joule in, quantization steps out.

With an entropy coder the KKT solution of FedAQ (arXiv 2406.18156) needs no whole bits: at
one price, the quantization step of every tensor, client and round is the resolution
``r = sqrt(lambda e / (2 ln2 c))`` itself, and lengths follow by themselves. Without a budget
the two resolutions are settings. With one, the price is found anew in every round, so that
this round, at the lengths to be expected, takes its share of what is left.

What a transfer really takes shows only when it is coded. So that nothing is overspent, each
sender has a limit, within which it stays by taking coarser steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.payload import ZERO, step_code
from fedaq.codec.quantizer import Floats, Spread
from fedaq.energy.cost import downlink_j_per_bit
from fedaq.errors import UserError
from fedaq_server.schemes.code_lengths import Tensors, tensors
from fedaq_server.schemes.optimizer import resolution
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState

# A round in which the noise in the mean update exceeds this multiple of its mean square is
# worth less than it costs; chosen by measurement on Fashion-MNIST (docs/how-to/budget.md).
DROWNED = 5.0

_HEADER_BITS = 8 * 14
_ZERO_BITS = 8 * ZERO.header_bytes
# Nothing goes down in the first round; this is the uplink's usual share of a round.
_FIRST_SHARE = 0.3
# A transfer may exceed so many times what was expected of it, while the budget lasts,
# before its limit acts.
_SLACK = 3.0
# Share of the last round's joules to be planned; the rest is for lengths expected too short.
_LAST_SHARE = 0.98
# Halvings of 60 decades: to a thousandth.
_BISECTIONS = 18
# Codes on each side of zero that are told apart.
_CODES = 2**15
_SMOOTHING = 0.5


@dataclass
class CodedResolution:
    """One quantization step per direction, the same in all rounds.

    Attributes
    ----------
    uplink, downlink : float
        The steps, in the unit of the weights.
    """

    uplink: float
    downlink: float

    def plan(self, state: RoundState) -> Plan:
        """Give every tensor the step of the downlink; foresee the bits of the last updates."""
        uplink = {
            name: uplink_grant(state, client, client.ranges or state.first_ranges, self.uplink).bits
            for name, client in state.clients.items()
        }
        return Plan(downlink_grant(state, self.downlink), uplink)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give every tensor the step of the uplink."""
        return uplink_grant(state, client, ranges, self.uplink)

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing: the steps are constant."""


@dataclass
class CodedBudget:
    """Steps from a price, and the price from what is left of a budget.

    What goes down is at hand, so a sample of it tells how long its codes will be. An update
    is not: it is expected to be as long as the last, in inverse proportion to its step, which
    is near the truth where few codes differ from zero.

    Attributes
    ----------
    budget_j : float
        For the whole run.
    spent_j : float
        In the rounds so far.
    up : dict of str to float
        Bytes times step of each client's updates, smoothed.
    """

    budget_j: float
    spent_j: float = 0.0
    up: dict[str, float] = field(default_factory=dict)
    _round: "_Round | None" = None

    def plan(self, state: RoundState) -> Plan | None:
        """Find the price, the downlink step and every client's limit.

        Raises
        ------
        UserError
            If the budget does not pay for a round.
        """
        left_j = self.budget_j - self.spent_j - state.catch_up_j
        least_j = _least_j(state)
        if left_j < least_j:
            if state.round == 1:
                raise UserError(
                    f"energy.budget_j = {self.budget_j:.6g} J does not pay for one round: its "
                    f"headers alone take {least_j:.6g} J"
                )
            return None
        # Above this price noise would drown what is sent: fewer and better rounds are run.
        dearest = self._dearest(state)
        affordable = int(left_j / self._round_j(state, dearest))
        if affordable == 0 and state.round > 1:
            return None
        rounds = min(state.rounds - state.round + 1, max(1, affordable))
        share_j = left_j / rounds * (_LAST_SHARE if rounds == 1 else 1.0)
        price = min(_bisect(lambda price: self._round_j(state, price), share_j), dearest)
        down_j = self._down_j(state, price)
        up_j = {name: self._up_j(state, client, price) for name, client in state.clients.items()}
        all_up_j = sum(up_j.values())
        forecast_j = min(rounds * (down_j + all_up_j), left_j) + state.catch_up_j
        # Every sender can pay for its headers, and nobody for more than what is left then.
        header_bytes = len(state.spec.tensors) * ZERO.header_bytes
        down_header_j = 8 * header_bytes * state.downlink_j_per_bit
        spare_j = left_j - least_j
        down_limit_j = down_header_j + max(
            0.0, min(max(_SLACK * down_j, share_j), spare_j - all_up_j)
        )
        spare_j -= down_limit_j - down_header_j
        slack = min(max(_SLACK, share_j / all_up_j), spare_j / all_up_j)
        self._round = _Round(
            up_steps={},
            shares_j=up_j,
            limits={
                name: header_bytes
                + _bytes(slack * joules, state.clients[name].radio.uplink_j_per_bit)
                for name, joules in up_j.items()
            },
        )
        down = downlink_grant(state, _downlink_step(state, price))
        limit = _bytes(down_limit_j, state.downlink_j_per_bit)
        return Plan(
            Grant(down.bits, down.steps, limit),
            {
                name: uplink_grant(
                    state, client, _known(client, state), _uplink_step(client, price)
                ).bits
                for name, client in state.clients.items()
            },
            price,
            forecast_j=forecast_j,
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give the client the step of the price, and its limit."""
        assert self._round is not None
        step = _uplink_step(client, plan.price)
        if not self.up:
            # Nothing was known of the updates, so nothing of the price. The share is.
            sent = tensors(ranges, state.spec.elements, nearest=False)
            j_per_bit = client.radio.uplink_j_per_bit
            step = _bisect(
                lambda step: j_per_bit * _model_bits(sent, step), self._round.shares_j[client.name]
            )
        self._round.up_steps[client.name] = step
        chosen = uplink_grant(state, client, ranges, step)
        return Grant(chosen.bits, chosen.steps, self._round.limits[client.name])

    def learn(self, outcome: Outcome) -> None:
        """Take note of what was spent, and of how long codes were."""
        planned = self._round
        assert planned is not None
        self.spent_j += outcome.energy_j
        for name, taken in outcome.uplink_bytes.items():
            self.up[name] = _smoothed(self.up.get(name, 0.0), taken * planned.up_steps[name])

    def _dearest(self, state: RoundState) -> float:
        """Return the price at which noise begins to drown what is sent."""
        return _bisect(lambda price: -_noise_to_signal(state, price), -DROWNED)

    def _round_j(self, state: RoundState, price: float) -> float:
        """Return the joules that a round is expected to take; they fall as the price rises."""
        up_j = sum(self._up_j(state, client, price) for client in state.clients.values())
        return self._down_j(state, price) + up_j

    def _up_j(self, state: RoundState, client: ClientState, price: float) -> float:
        step, j_per_bit = _uplink_step(client, price), client.radio.uplink_j_per_bit
        if not self.up:
            sent = tensors(state.first_ranges, state.spec.elements, nearest=False)
            return j_per_bit * _model_bits(sent, step)
        usual = self.up.get(client.name) or sum(self.up.values()) / len(self.up)
        return j_per_bit * 8 * usual / step

    def _down_j(self, state: RoundState, price: float) -> float:
        if not self.up and all(spread.is_zero for spread in state.downlink_ranges):
            # Nothing is to go down yet. Later on it takes more than the uplink.
            up_j = sum(self._up_j(state, client, price) for client in state.clients.values())
            return up_j * (1 / _FIRST_SHARE - 1)
        return state.downlink_j_per_bit * sample_bits(state, _downlink_step(state, price))


@dataclass(frozen=True)
class _Round:
    """What was decided when a round began, and while it went on.

    Attributes
    ----------
    up_steps : dict of str to float
        Of the grants.
    shares_j : mapping of str to float
        What each update is expected to take.
    limits : mapping of str to int
        What it may take, in bytes.
    """

    up_steps: dict[str, float]
    shares_j: Mapping[str, float]
    limits: Mapping[str, int]


def _smoothed(before: float, now: float) -> float:
    return float(now if before == 0 else before ** (1 - _SMOOTHING) * now**_SMOOTHING)


def sample_bits(state: RoundState, step: float) -> float:
    """Return the bits that what goes down will take with a quantization step."""
    return sum(
        _HEADER_BITS + elements * _entropy(values, step, nearest=state.differences)
        for values, elements in zip(state.downlink_samples, state.spec.elements, strict=True)
    )


def _entropy(values: Floats, step: float, *, nearest: bool) -> float:
    """Return the entropy of the codes of values, in bits a value."""
    position = values.astype(np.float64) / step
    below = np.floor(position)
    up = position - below
    chance = (up >= 0.5).astype(np.float64) if nearest else up
    # Codes too far out for a table, which share the last, are too few to count.
    codes = np.clip(below, -_CODES, _CODES).astype(np.int64) + _CODES
    counts = np.bincount(codes, 1 - chance, 2 * _CODES + 2)
    counts += np.bincount(codes + 1, chance, 2 * _CODES + 2)
    shares = counts[counts > 0] / max(len(values), 1)
    return float(-np.sum(shares * np.log2(shares)))


def _model_bits(sent: Tensors, step: float) -> float:
    """Return the bits of tensors that were never sent before, as their shape lets expect."""
    return float(np.sum(sent.bits(step) + _HEADER_BITS))


def _noise_to_signal(state: RoundState, price: float) -> float:
    """Return the noise in the mean of all updates over their mean square."""
    noise = signal = 0.0
    for client in state.clients.values():
        sent = tensors(_known(client, state), state.spec.elements, nearest=False)
        square = sent.elements * sent.rms**2
        errors = sent.errors(_uplink_step(client, price))
        noise += client.weight**2 * float(np.dot(square, errors))
        signal += client.weight * float(np.sum(square))
    return noise / signal if signal else 0.0


def uplink_grant(
    state: RoundState, client: ClientState, ranges: tuple[Spread, ...], step: float
) -> Grant:
    """Return the grant of an update, but for small tensors that are not worth their bits.

    What is left out is kept by the client and comes with its next update. Noise averages out
    over the clients, progress does not: what is not sent counts `DROWNED` times.
    """
    sent = tensors(ranges, state.spec.elements, nearest=False)
    bits = sent.bits(step)
    noise = client.weight**2 * sent.errors(step)
    gain = sent.elements * sent.rms**2 * (DROWNED * client.weight - noise)
    # The noise that a bit is worth at the price that makes this step.
    worth = step**2 * 2 * log(2) * client.weight**2 / 4
    small = bits < _HEADER_BITS
    return _grant(ranges, step, ~small | (gain > worth * (bits + _HEADER_BITS - _ZERO_BITS)))


def downlink_grant(state: RoundState, step: float) -> Grant:
    """Return the grant of what goes down, but for differences that would be rounded to zero."""
    reaches = np.array([max(-spread.lo, spread.hi) for spread in state.downlink_ranges])
    least = step / 2 if state.differences else 0.0
    return _grant(state.downlink_ranges, step, reaches >= least)


def _grant(ranges: tuple[Spread, ...], step: float, worth: NDArray[np.bool_]) -> Grant:
    bits = tuple(
        step_code(bounds, step).bits if is_worth else 0
        for bounds, is_worth in zip(ranges, worth, strict=True)
    )
    return Grant(bits, tuple(step if b else 0.0 for b in bits))


def _uplink_step(client: ClientState, price: float) -> float:
    return resolution(price, client.radio.uplink_j_per_bit, client.weight**2)


def _downlink_step(state: RoundState, price: float) -> float:
    # A difference that nobody needs now costs nothing, but whoever misses it may need it later.
    radios = [client.radio for client in state.clients.values()]
    j_per_bit = state.downlink_j_per_bit or downlink_j_per_bit(radios, broadcast=False)
    return resolution(price, j_per_bit, 1.0)


def _bisect(falling: Callable[[float], float], target: float) -> float:
    """Return the least positive number at which a falling function is at most `target`."""
    low, high = log(1e-30), log(1e30)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if falling(exp(middle)) <= target:
            high = middle
        else:
            low = middle
    return exp(high)


def _least_j(state: RoundState) -> float:
    """Return the joules of a round in which nothing but headers is sent."""
    senders = [client.radio.uplink_j_per_bit for client in state.clients.values()]
    return len(state.spec.tensors) * _ZERO_BITS * (state.downlink_j_per_bit + sum(senders))


def _bytes(joules: float, j_per_bit: float) -> int:
    return int(joules / (8 * j_per_bit)) if j_per_bit > 0 else 2**62


def _known(client: ClientState, state: RoundState) -> tuple[Spread, ...]:
    """Return the spreads of the client's last update, or another's, or of the first weights."""
    seen = [other.ranges for other in state.clients.values() if other.ranges is not None]
    return client.ranges or (seen[0] if seen else state.first_ranges)
