"""FedAQ where payloads are entropy-coded: a price of a joule in, quantization steps out.

With an entropy coder the KKT solution of FedAQ (arXiv 2406.18156) needs no whole bits: at
one price, the quantization step of every tensor, client and round is the resolution
``r = sqrt(lambda e / (2 ln2 c))`` itself. Without a budget the two resolutions are settings. With
one, the price is found anew in every round, so that it takes, at the lengths to be expected, its
share of what is left. What would exceed a sender's limit is coded in coarser steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, inf, log

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.payload import ZERO, Bits, step_bits
from fedaq.codec.quantizer import Spread
from fedaq.codec.statistics import normalization
from fedaq.energy.cost import downlink_j_per_bit
from fedaq_server.schemes.code_lengths import (
    HEADER_BITS,
    Tensors,
    root_mean_square,
    sample_bits,
    tensors,
)
from fedaq_server.schemes.optimizer import resolution, resolutions
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState
from fedaq_server.schemes.spending import (
    header_bytes,
    known_spreads,
    least_down_bytes,
    least_j,
    left_j,
    rounds_paid,
    too_small,
)
from fedaq_server.schemes.spreads import Array, Spreads, arrays, stacked

# docs/research/budget-constants.md: what other values do, of all down to `FIRST_UPDATE`.
# A round in which the noise in the mean update exceeds this multiple of its mean square is
# worth less than it costs. Of the values tried, twice as much lets training fall apart.
DROWNED = 5.0
# With BatchNorm, nor may it exceed this share of the mean square of the weights that the run began
# with: updates are large there, and would leave noise alone (docs/research/statistics.md).
SHAKEN = 0.03
# Nothing goes down in the first round; this is the uplink's usual share of a round.
FIRST_SHARE = 0.3
# So many times what was expected of it may a transfer take, while the budget lasts.
SLACK = 3.0
# What clients lack of the model that the run begins with (--from) goes down at once, in steps of
# this share of its deviation; the rest is in later differences.
START_STEP = 0.25
# Share of the last round's joules to be planned; the rest is for lengths expected too short.
LAST_SHARE = 0.98
# Weight of the newest length of a client's updates.
SMOOTHING = 0.5
# Before the first update: how wide updates are, as a share of the weights.
FIRST_UPDATE = 1.0

_ZERO_BITS = 8 * ZERO.header_bytes
_BISECTIONS = 18  # halvings of 60 decades: to a thousandth of a price


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
        steps = np.full(len(state.clients), self.uplink)
        spreads = [client.ranges or state.first_ranges for client in state.clients.values()]
        return Plan(downlink_grant(state, self.downlink), _foreseen(state, stacked(spreads), steps))

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
    _least_price: float = 0.0  # of a relay: what its own server has found
    _dearest: float = 0.0

    def plan(self, state: RoundState) -> Plan | None:
        """Find the price, the downlink step and every client's limit.

        Raises
        ------
        UserError
            If the budget does not pay for a round.
        """
        left = left_j(self.budget_j, self.spent_j, state)
        headers_j = least_j(state)
        if left < headers_j:
            if state.round == 1:
                parts = "its headers and the models that clients lack take"
                raise too_small(
                    self.budget_j,
                    "does not pay for one round: "
                    f"{parts if state.catch_up_j else 'its headers alone take'} "
                    f"{headers_j + state.catch_up_j:.6g} J",
                )
            return None
        spreads = stacked(known_spreads(state, FIRST_UPDATE))
        expected = _expected(state, spreads, self.up)
        start_j = expected.start_j()
        if start_j > left - headers_j:
            raise too_small(
                self.budget_j,
                "does not pay for the model that the run begins with, which clients lack: that "
                f"takes {start_j:.6g} J",
            )
        left -= start_j
        # Above this price noise would drown what is sent: fewer and better rounds are run.
        dearest = _bisect(lambda price: -expected.noise(price), -expected.most_noise)
        dearest = min(dearest, *(client.most_price for client in state.clients.values()))
        self._dearest = dearest
        affordable = rounds_paid(state, left, expected.round_j(dearest))
        if affordable == 0 and state.round > 1 and not self._least_price:
            return None
        rounds = max(1, affordable)
        share_j = left / rounds * (LAST_SHARE if rounds == 1 else 1.0)
        price = min(max(_bisect(expected.round_j, share_j), self._least_price), dearest)
        down_j, up_j = expected.down_j(price), expected.up_j(price)
        share_j = down_j + _total(up_j) if self._least_price else share_j
        # Of a start, all that is expected of the rounds that are left to it may be taken at once.
        down_limit_j, slack = _limits(
            state, share_j, left + start_j - headers_j, down_j + start_j, _total(up_j)
        )
        self._round = _Round(
            up_steps={},
            shares_j=dict(zip(state.clients, up_j.tolist(), strict=True)),
            limits={
                name: header_bytes(state) + _bytes(slack * joules, client.radio.uplink_j_per_bit)
                for (name, client), joules in zip(state.clients.items(), up_j.tolist(), strict=True)
            },
        )
        step = expected.start_step if start_j else _downlink_step(state, price)
        down = downlink_grant(state, step)
        limit = _bytes(down_limit_j, state.downlink_j_per_bit)
        return Plan(
            Grant(down.bits, down.steps, limit),
            _foreseen(state, spreads, expected.up_steps(price)),
            price,
            forecast_j=min(rounds * (down_j + _total(up_j)), left) + start_j + state.catch_up_j,
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give the client the step of the price, and its limit."""
        assert self._round is not None
        step = _uplink_step(client, plan.price)
        if not self.up:
            # Nothing was known of the updates, so nothing of the price. The share is.
            sent = tensors(arrays(ranges), state.spec.elements, nearest=False)
            j_per_bit = client.radio.uplink_j_per_bit
            step = _bisect(
                lambda step: j_per_bit * float(_first_bits(sent, step)),
                self._round.shares_j[client.name],
            )
            step = min(step, _bearable_step(state, sent))
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
    return float(now if before == 0 else before ** (1 - SMOOTHING) * now**SMOOTHING)


@dataclass(frozen=True)
class _Expected:
    """What a round is expected to take and to lose at a price, from what no price changes.

    Attributes
    ----------
    state : RoundState
    j_per_bit, squares : float64, shape (senders,)
        Of the uplink, and of the weights.
    updates : Tensors
        What is known of the updates, of shape (senders, tensors).
    power : float64, shape (senders, tensors)
        Sum of the squares of their values.
    usual : float64, shape (senders,), optional
        Bytes times step of each update; None while no update was seen.
    first : Tensors
        The weights with which the run began, which stand for updates then.
    samples : tuple of float64 arrays
        Of what goes down.
    """

    state: RoundState
    j_per_bit: Array
    squares: Array
    updates: Tensors
    power: Array
    usual: Array | None
    first: Tensors
    samples: tuple[Array, ...]

    def round_j(self, price: float) -> float:
        """Return the joules that a round takes; they fall as the price rises."""
        return self.down_j(price) + _total(self.up_j(price))

    def up_j(self, price: float) -> Array:
        """Return the joules that each update takes, shape (senders,)."""
        steps = self.up_steps(price)
        if self.usual is None:
            return self.j_per_bit * _first_bits(self.first, steps[:, None])
        return self.j_per_bit * 8 * self.usual / steps

    def down_j(self, price: float) -> float:
        """Return the joules of what goes down."""
        state = self.state
        if self.usual is None and state.differences:
            # But for a start, nothing is to go down yet. Later on it takes more than the uplink.
            return _total(self.up_j(price)) * (1 / FIRST_SHARE - 1)
        step, elements = _downlink_step(state, price), state.spec.elements
        return state.downlink_j_per_bit * sample_bits(
            self.samples, elements, step, nearest=state.differences
        )

    def start_j(self) -> float:
        """Return the joules of the model that the run begins with, if clients lack it."""
        state = self.state
        if self.usual is not None or not self.start_step:
            return 0.0
        return state.downlink_j_per_bit * sample_bits(
            self.samples, state.spec.elements, self.start_step, nearest=state.differences
        )

    @cached_property
    def start_step(self) -> float:
        """The step of a model that the run begins with; 0 where clients lack nothing."""
        if not self.state.differences:
            return 0.0
        lacking = arrays(self.state.downlink_ranges)
        elements = np.array(self.state.spec.coded_elements)
        squares = elements * root_mean_square(lacking) ** 2
        return START_STEP * float(np.sqrt(np.sum(squares) / max(np.sum(elements), 1)))

    def up_steps(self, price: float) -> Array:
        """Return the quantization step of each update, shape (senders,)."""
        return resolutions(price, self.j_per_bit, self.squares)

    def noise(self, price: float) -> float:
        """Return the noise in the mean of all updates; it rises with the price."""
        errors = self.updates.errors(self.up_steps(price)[:, None])
        return _total(self.squares * np.sum(self.power * errors, axis=1))

    @cached_property
    def most_noise(self) -> float:
        """The noise above which a round is worth less than it costs."""
        weights = np.array([client.weight for client in self.state.clients.values()])
        most = DROWNED * _total(weights * np.sum(self.power, axis=1)) or inf
        # Of updates that nobody has seen, no more is known.
        return most if self.usual is None else min(most, _bearable_noise(self.state))


def _expected(state: RoundState, spreads: Spreads, up: Mapping[str, float]) -> _Expected:
    clients, elements = state.clients.values(), state.spec.elements
    updates = tensors(spreads, elements, nearest=False)
    mean = sum(up.values()) / len(up) if up else 0.0
    return _Expected(
        state=state,
        j_per_bit=np.array([client.radio.uplink_j_per_bit for client in clients]),
        squares=np.array([client.weight**2 for client in clients]),
        updates=updates,
        # Statistics are sent finely whatever the price: they say nothing of the noise of weights.
        power=np.array(state.spec.coded_elements) * updates.rms**2,
        usual=np.array([up.get(name) or mean for name in state.clients]) if up else None,
        first=tensors(arrays(state.first_ranges), elements, nearest=False),
        samples=tuple(values.astype(np.float64) for values in state.downlink_samples),
    )


def _first_bits(sent: Tensors, step: float | Array) -> Array:
    """Return the bits of updates when none was seen before, as their shape lets expect."""
    bits: Array = np.sum(sent.bits(step) + HEADER_BITS, axis=-1)
    return bits


def _bearable_noise(state: RoundState) -> float:
    """Return what noise the weights bear in a round; any, without BatchNorm or if all are 0."""
    if not normalization(state.spec):
        return inf
    squares = root_mean_square(arrays(state.first_ranges)) ** 2
    return SHAKEN * float(np.sum(state.spec.coded_elements * squares)) or inf


def _bearable_step(state: RoundState, sent: Tensors) -> float:
    """Return the step with which updates like this one bring that noise."""
    power = state.squared_weights * np.array(state.spec.coded_elements) * sent.rms**2
    return _bisect(lambda step: -float(np.sum(power * sent.errors(step))), -_bearable_noise(state))


def _limits(
    state: RoundState, share_j: float, spare_j: float, down_j: float, up_j: float
) -> tuple[float, float]:
    """Return what may go down, in joules, and how many times what is expected may come up.

    Every sender can pay for its headers, and nobody for more than what is left then: `spare_j`
    joules. `share_j` is what the round is to take, `down_j` and `up_j` what is expected.
    """
    header_j = 8 * least_down_bytes(state) * state.downlink_j_per_bit
    limit_j = header_j + max(0.0, min(max(SLACK * down_j, share_j), spare_j - up_j))
    spare_j -= limit_j - header_j
    return limit_j, min(max(SLACK, share_j / up_j), spare_j / up_j)


def _foreseen(state: RoundState, spreads: Spreads, steps: Array) -> dict[str, Bits]:
    """Return the bits of every client, if its update has these spreads."""
    weights = np.array([client.weight for client in state.clients.values()])
    bits = _uplink_bits(spreads, state.spec.elements, weights[:, None], steps[:, None])
    return dict(zip(state.clients, map(tuple, bits.tolist()), strict=True))


def uplink_grant(
    state: RoundState, client: ClientState, ranges: tuple[Spread, ...], step: float
) -> Grant:
    """Return the grant of an update, but for small tensors that are not worth their bits.

    What is left out is kept by the client and comes with its next update. Noise averages out
    over the clients, progress does not: what is not sent counts `DROWNED` times.
    """
    weight, one_step = np.array(client.weight), np.array(step)
    return _grant(_uplink_bits(arrays(ranges), state.spec.elements, weight, one_step), step)


def _uplink_bits(
    spreads: Spreads, elements: Sequence[int], weights: Array, steps: Array
) -> NDArray[np.int64]:
    """Return the bits that `uplink_grant` gives the tensors of one sender or many."""
    sent = tensors(spreads, elements, nearest=False)
    bits, squares = sent.bits(steps), weights**2
    noise = squares * sent.errors(steps)
    gain = sent.elements * sent.rms**2 * (DROWNED * weights - noise)
    # The noise that a bit is worth at the price that makes this step.
    worth = steps**2 * 2 * log(2) * squares / 4
    pays = (bits >= HEADER_BITS) | (gain > worth * (bits + HEADER_BITS - _ZERO_BITS))
    return np.where(pays, step_bits(spreads.lo, spreads.hi, steps), 0)


def downlink_grant(state: RoundState, step: float) -> Grant:
    """Return the grant of what goes down, but for differences that would be rounded to zero."""
    spreads = arrays(state.downlink_ranges)
    least = step / 2 if state.differences else 0.0
    sent = np.maximum(-spreads.lo, spreads.hi) >= least
    return _grant(np.where(sent, step_bits(spreads.lo, spreads.hi, np.array(step)), 0), step)


def _grant(bits: NDArray[np.int64], step: float) -> Grant:
    return Grant(tuple(bits.tolist()), tuple(np.where(bits > 0, step, 0.0).tolist()))


def _uplink_step(client: ClientState, price: float) -> float:
    return resolution(price, client.radio.uplink_j_per_bit, client.weight**2)


def _downlink_step(state: RoundState, price: float) -> float:
    # A difference that nobody needs now costs nothing, but whoever misses it may need it later.
    radios = [client.radio for client in state.clients.values()]
    j_per_bit = state.downlink_j_per_bit or downlink_j_per_bit(radios, broadcast=False)
    return resolution(price, j_per_bit, state.share)


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


def _total(joules: Array) -> float:
    return float(sum(joules.tolist()))


def _bytes(joules: float, j_per_bit: float) -> int:
    return int(joules / (8 * j_per_bit)) if j_per_bit > 0 else 2**62
