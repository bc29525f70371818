"""What a round of steps is expected to take and to lose at a price of a joule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import exp, inf, log

import numpy as np

from fedaq.codec.statistics import normalization
from fedaq.energy.cost import downlink_j_per_bit
from fedaq_server.schemes.code_lengths import Codes, root_mean_square, sample_codes
from fedaq_server.schemes.crowd import CLIENTS, noise_down
from fedaq_server.schemes.optimizer import resolution, resolutions
from fedaq_server.schemes.scheme import ClientState, RoundState
from fedaq_server.schemes.spending import known_spreads
from fedaq_server.schemes.spreads import Array, arrays, stacked
from fedaq_server.schemes.step_grants import Updates, downlink_steps, updates

# docs/research/budget-constants.md: what other values do.
# Nothing goes down in the first round; this is the uplink's usual share of a round.
FIRST_SHARE = 0.3
# Before the first update: how wide updates are, as a share of the weights.
FIRST_UPDATE = 1.0
# With BatchNorm, noise may not exceed this share of the mean square of the weights that the run
# began with: their scale is irrelevant there, updates are large beside them, and noise of several
# times that would be all that is left of them (docs/research/statistics.md).
SHAKEN = 0.03
# The run begins with a model that clients lack (--from): it goes down at once, in steps of this
# share of the deviation of what they lack. What is left of it is in the differences after it.
START_STEP = 0.25

# Halvings of 60 decades: to a thousandth of a price.
_BISECTIONS, _ENDS = 18, (1e-30, 1e30)


@dataclass(frozen=True)
class Longer:
    """How many times their entropy codes took, as far as is known.

    Attributes
    ----------
    up : mapping of str to float
        By client; empty while no update was seen.
    down : float
    """

    up: Mapping[str, float]
    down: float


@dataclass(frozen=True)
class Expected:
    """What a round is expected to take and to lose at a price, from what no price changes.

    Attributes
    ----------
    state : RoundState
    is_first : bool
        Whether no update was seen yet.
    j_per_bit, squares : float64, shape (senders,)
        Of the uplink, and of the weights.
    updates : Updates
        What is known of the updates, of shape (senders, tensors).
    longer : float64, shape (senders, 1)
        How many times its entropy each update's codes take.
    longer_down : float
        The same of what goes down.
    tolerance : float
        How many times its mean square the noise in the mean update may be.
    samples : tuple of float64 arrays
        Of what goes down.
    """

    state: RoundState
    is_first: bool
    j_per_bit: Array
    squares: Array
    updates: Updates
    longer: Array
    longer_down: float
    tolerance: float
    samples: tuple[Array, ...]

    def round_j(self, price: float) -> float:
        """Return the joules that a round takes; they fall as the price rises."""
        return self.down_j(price) * self.copies + total(self.up_j(price))

    @cached_property
    def copies(self) -> float:
        """How many times the joules of what goes down are taken, by clients that come back too."""
        state = self.state
        if not state.absent_j_per_bit:
            return 1.0
        return 1 + state.absent_j_per_bit / (state.downlink_j_per_bit or _usual_j_per_bit(state))

    def up_j(self, price: float) -> Array:
        """Return the joules that each update takes, shape (senders,)."""
        codes = self.updates.codes(self.up_steps(price)[:, None])
        joules: Array = self.j_per_bit * codes.total(self.longer)
        return joules

    def down_j(self, price: float) -> float:
        """Return the joules of what goes down."""
        state = self.state
        if self.is_first and state.differences:
            # But for a start, nothing is to go down yet. Later on it takes more than the uplink.
            return total(self.up_j(price)) * (1 / FIRST_SHARE - 1)
        return state.downlink_j_per_bit * self.down_bits(downlink_step(state, price))

    def start_j(self) -> float:
        """Return the joules of the model that the run begins with, if clients lack it."""
        step = start_step(self.state) if self.is_first else 0.0
        return self.state.downlink_j_per_bit * self.down_bits(step) if step else 0.0

    def down_bits(self, step: float) -> float:
        """Return the bits of what goes down at a step."""
        return float(self.down_codes(step).total(self.longer_down))

    def down_codes(self, step: float) -> Codes:
        """Return what goes down at a step."""
        state = self.state
        steps = downlink_steps(state, step)
        return sample_codes(self.samples, state.spec.elements, steps, nearest=state.differences)

    def up_steps(self, price: float) -> Array:
        """Return the quantization step of each update, shape (senders,)."""
        return resolutions(price, self.j_per_bit, self.squares)

    @cached_property
    def dearest(self) -> float:
        """The price above which noise would drown what is sent."""
        sent = self.updates
        most = self.tolerance * total(np.sum(sent.weights * sent.power, axis=1)) or inf
        if not self.is_first:
            most = min(most, self.state.share * bearable_noise(self.state))
        price = greatest(
            lambda price: total(sent.harm(self.up_steps(price)[:, None], self.tolerance)), most
        )
        squares = self.state.squared_weights
        if CLIENTS * squares >= 1:
            return price
        weights = sent.weights[:, 0]
        up = total(weights * self.up_steps(price)) / total(weights)
        return min(price, (noise_down(squares) * up / downlink_step(self.state, 1.0)) ** 2)


def expected(state: RoundState, longer: Longer, tolerance: float) -> Expected:
    """Return what is expected of a round."""
    clients = state.clients.values()
    weights = np.array([client.weight for client in clients])
    reports = np.array([client.reports for client in clients])
    known = stacked(known_spreads(state, FIRST_UPDATE))
    usual = sum(longer.up.values()) / len(longer.up) if longer.up else 1.0
    return Expected(
        state=state,
        is_first=not longer.up,
        j_per_bit=np.array([client.radio.uplink_j_per_bit for client in clients]),
        squares=weights**2,
        updates=updates(known, state, weights[:, None], reports[:, None]),
        longer=np.array([[longer.up.get(name, usual)] for name in state.clients]),
        longer_down=longer.down,
        tolerance=tolerance,
        samples=tuple(values.astype(np.float64) for values in state.downlink_samples),
    )


def start_step(state: RoundState) -> float:
    """Return the step of a model that the run begins with; 0 where clients lack nothing."""
    if not state.differences:
        return 0.0
    elements = np.array(state.spec.coded_elements)
    squares = elements * root_mean_square(arrays(state.downlink_ranges)) ** 2
    return START_STEP * float(np.sqrt(np.sum(squares) / max(np.sum(elements), 1)))


def coarsest_step(
    state: RoundState, client: ClientState, sent: Updates, tolerance: float, step: float
) -> float:
    """Return a step, or the coarsest that does not drown updates, if all are like this one."""
    return float(coarsest_steps(state, np.array(client.weight), sent, tolerance, np.array(step)))


def coarsest_steps(
    state: RoundState, weights: Array, sent: Updates, tolerance: float, steps: Array
) -> Array:
    """Return the `coarsest_step` of one update or of each of many.

    Parameters
    ----------
    state : RoundState
    weights : float64, shape () or (senders,)
    sent : Updates
        Of shape (tensors,) or (senders, tensors).
    tolerance : float
    steps : float64, as the weights
    """
    power, squares = np.sum(sent.power, axis=-1), state.squared_weights * weights
    most = weights * np.minimum(np.where(power > 0, tolerance * power, inf), bearable_noise(state))

    def harm(steps: Array) -> Array:
        return sent.harm(steps[..., None], tolerance, squares[..., None])

    is_fine = harm(steps) <= most
    if np.all(is_fine):
        return steps
    low, high = (np.full(weights.shape, log(end)) for end in _ENDS)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_below = harm(_exps(middle)) <= most
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return np.where(is_fine, steps, np.minimum(_exps(low), steps))


def _exps(exponents: Array) -> Array:
    """Return the same numbers as `exp`: those of NumPy may differ in the last bit."""
    return np.array(list(map(exp, exponents.ravel().tolist()))).reshape(exponents.shape)


def step_for(sent: Updates, bits: float, longer: float) -> float:
    """Return the step with which an update takes so many bits."""
    return bisect(lambda step: float(sent.codes(step).total(longer)), bits)


def bearable_noise(state: RoundState) -> float:
    """Return what noise the weights bear in a round; any, without BatchNorm or if all are 0."""
    if not normalization(state.spec):
        return inf
    squares = root_mean_square(arrays(state.first_ranges)) ** 2
    return SHAKEN * float(np.sum(state.spec.coded_elements * squares)) or inf


def downlink_step(state: RoundState, price: float) -> float:
    """Return the step of what goes down at a price."""
    # A difference that nobody needs now costs nothing, but whoever misses it may need it later.
    j_per_bit = state.downlink_j_per_bit or _usual_j_per_bit(state)
    return resolution(price, j_per_bit + state.absent_j_per_bit, state.share)


def _usual_j_per_bit(state: RoundState) -> float:
    radios = [client.radio for client in state.clients.values()]
    return downlink_j_per_bit(radios, broadcast=False)


def bisect(falling: Callable[[float], float], target: float) -> float:
    """Return the least positive number at which a falling function is at most `target`."""
    return _between(lambda at: falling(at) > target)[1]


def greatest(rising: Callable[[float], float], most: float) -> float:
    """Return the greatest positive number at which a rising function is at most `most`."""
    return _between(lambda at: rising(at) <= most)[0]


def _between(is_below: Callable[[float], bool]) -> tuple[float, float]:
    """Return two numbers next to each other, of which the first alone is below."""
    low, high = map(log, _ENDS)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(exp(middle)) else (low, middle)
    return exp(low), exp(high)


def total(joules: Array) -> float:
    """Return the sum of numbers in their order, which is the same everywhere."""
    return float(sum(joules.tolist()))
