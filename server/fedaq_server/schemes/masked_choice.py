"""Which share of an update is sent, and in which steps, where codes cannot be entropy-coded.

One value in N of all updates is sent, the same of all clients, N times as large
(`fedaq.codec.subset`). Beside the mean square of the updates, the mean that arrives has the noise

    (N - 1) + N * sum_i p_i**2 * error(step)

at the most, where `error` is beside that, too. Codes take 1/N of the bits; keys, shares and what
goes down take what they take. So a round of much noise is cheap, and more rounds are needed. The
choice is that with the most gain for a joule, and with a budget that with the most gain for what
the budget has for a round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedaq.codec.common_grid import LEAST_STEP
from fedaq.codec.model import Kind
from fedaq.codec.quantizer import LARGEST_VALUE, Spread
from fedaq_server.schemes.code_lengths import sample_codes, tensors
from fedaq_server.schemes.expected import downlink_step
from fedaq_server.schemes.scheme import RoundState
from fedaq_server.schemes.spreads import Array, arrays

# docs/research/masks.md: what other values do.
# Noise over the mean square of the updates at which training takes twice the rounds.
DOUBLING = 36.0
# Beyond it training falls apart. It is halved where the test's loss is so many times its least.
MOST_NOISE = 18.0
RISEN = 1.5
# Mean square of the mean update over that of the updates: it is of the mean that values are drawn.
SHARED = 0.3
# The range of codes, in root mean squares of an update. What lies beyond is cut.
REACH = 6.0
# Rounded up to whole steps, a reach stays within what the server takes.
LARGEST_REACH = LARGEST_VALUE / 2
# Before the first update: how wide it may be turns out so many times too much.
NARROW = 4.0
# Bits of what goes down, for each value that was sent, before anything went.
FIRST_DOWN_BITS = 3.0
# Of Laplace's distribution, which updates are near to: mean magnitude over root mean square.
_PEAKY = 0.5**0.5
# What is tried: one value in so many, and steps, in root mean squares of all that is sent.
ONE_IN = range(1, 17)
STEPS = tuple(2.0**power for power in range(-3, 5))


@dataclass(frozen=True)
class Choice:
    """What is sent of every update, and how.

    Attributes
    ----------
    one_in : int
        One value in so many.
    step : float
        In which it is coded, so many times as large as it is: a power of two.
    noise : float
        In the mean update, over the mean square of the updates.
    code_bytes : float
        Of the codes of each client, as many as are expected.
    down_bytes : float
        Of what goes down.
    price : float
        Of a joule: what less noise costs here, as both directions have it.
    """

    one_in: int
    step: float
    noise: float
    code_bytes: float
    down_bytes: float
    price: float

    @property
    def gain(self) -> float:
        """How far a round brings training, beside one without noise."""
        return 1 / (1 + (self.noise / DOUBLING) ** 2)


@dataclass(frozen=True)
class Limit:
    """What a round takes of one budget, and may take.

    Attributes
    ----------
    up, down, fixed : float
        For a byte of every client's codes, for one of the broadcast, and whatever is chosen.
    most : float
    """

    up: float
    down: float
    fixed: float
    most: float

    def taken(self, choice: Choice) -> float:
        """Return what a choice takes."""
        return self.up * choice.code_bytes + self.down * choice.down_bytes + self.fixed


def candidates(
    state: RoundState,
    widths: Sequence[float],
    *,
    is_first: bool,
    most_bits: int,
    most_noise: float,
) -> list[Choice]:
    """Return the choices whose noise training bears; the one of least noise if there are none.

    Parameters
    ----------
    state : RoundState
    widths : sequence of float
        Root mean square of each tensor of the updates.
    is_first : bool
        Whether these are no more than a guess at what they may be at the most.
    most_bits : int
        Of a code.
    most_noise : float
        That training bears, as `Choice.noise`.
    """
    coded = np.array([t.kind == Kind.CODED for t in state.spec.tensors])
    elements, wide = np.array(state.spec.elements, np.float64)[coded], np.array(widths)[coded]
    rms = wide / NARROW if is_first else wide
    powers = elements * rms**2
    power = float(np.sum(powers)) or 1.0
    sent = tensors(arrays([_spread(width) for width in rms.tolist()]), elements, nearest=False)
    usual = float(np.sqrt(np.sum(elements * wide**2) / max(np.sum(elements), 1)))
    found = []
    for one_in in ONE_IN:
        steps = np.unique(_power_of_two(one_in * usual * np.array(STEPS)))[:, None]
        zeros = np.maximum(np.ceil(np.minimum(REACH * one_in * wide, LARGEST_REACH) / steps), 1)
        bits = _bit_length(2 * zeros * state.total_weight)
        code_bytes = np.sum(elements / one_in * bits, axis=1) / 8
        errors = np.sum(sent.errors(steps / one_in) * powers, axis=1)
        rounding = state.squared_weights * errors / power
        noise = one_in * (1 + rounding) - 1
        # What noise there is falls with the joules of the codes, by so much for each.
        prices = power * one_in * (SHARED + rounding) / (_up_j_per_byte(state) * code_bytes)
        usual_price = float(prices[np.argmin(code_bytes * (1 + (noise / DOUBLING) ** 2))])
        down_bytes = _down_bytes(state, one_in, usual_price, is_first=is_first)
        fits = np.all(2 * zeros < 2**most_bits, axis=1)
        found += [
            Choice(one_in, step, noise_of, bytes_of, down_bytes, price)
            for step, noise_of, bytes_of, price, fit in zip(
                *(each.tolist() for each in (steps[:, 0], noise, code_bytes, prices, fits)),
                strict=True,
            )
            if fit
        ]
    borne = [choice for choice in found if choice.noise <= most_noise]
    if borne or not found:
        return borne or [Choice(1, usual, 0.0, 0.0, 0.0, 0.0)]
    return [min(found, key=lambda choice: choice.noise)]


def best_choice(found: Sequence[Choice], joules: Limit) -> Choice:
    """Return the choice with the most gain for a joule."""
    return max(found, key=lambda choice: choice.gain / joules.taken(choice))


def best_within(found: Sequence[Choice], limits: Sequence[Limit]) -> Choice:
    """Return the choice with the most gain that no limit forbids; if all are, the least."""
    fit = [one for one in found if all(limit.taken(one) <= limit.most for limit in limits)]
    if fit:
        return max(fit, key=lambda choice: choice.gain)
    return min(found, key=lambda one: max(limit.taken(one) / limit.most for limit in limits))


def _up_j_per_byte(state: RoundState) -> float:
    return 8 * sum(client.radio.uplink_j_per_bit for client in state.clients.values())


def _down_bytes(state: RoundState, one_in: int, price: float, *, is_first: bool) -> float:
    """Return the bytes of what goes down at a price of a joule."""
    if is_first or not state.differences:
        return FIRST_DOWN_BITS / 8 * state.spec.parameters / one_in
    samples = [values.astype(np.float64) for values in state.downlink_samples]
    step = max(downlink_step(state, price), LEAST_STEP)
    return float(sample_codes(samples, state.spec.elements, step, nearest=True).total(1.0)) / 8


def _spread(width: float) -> Spread:
    return Spread(-REACH * width, REACH * width, 0.0, width, _PEAKY * width)


def _power_of_two(steps: Array) -> Array:
    return np.exp2(np.round(np.log2(np.maximum(steps, LEAST_STEP)))).astype(np.float64)


def _bit_length(numbers: Array) -> Array:
    lengths: Array = np.frexp(numbers)[1].astype(np.float64)
    return lengths
