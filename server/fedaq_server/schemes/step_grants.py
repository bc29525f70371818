"""Grants of quantization steps: what they send, how long it will be, and what is kept back.

Steps are those of a price, but for statistics. An error of them stays in one test and is in no
later model, so they have steps of their own, whatever a bit costs (docs/research/statistics.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, log

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.payload import Bits, step_bits
from fedaq.codec.quantizer import Spread
from fedaq.codec.statistics import DOWNLINK, UPLINK
from fedaq_server.schemes.code_lengths import (
    HEADER_BITS,
    ZERO_BITS,
    Codes,
    Tensors,
    root_mean_square,
    tensors,
)
from fedaq_server.schemes.scheme import Grant, RoundState
from fedaq_server.schemes.spreads import Array, Spreads, arrays, stacked

# Noise averages out over clients and rounds, progress does not: what is not sent counts so often.
KEPT = 5.0
# A round that keeps more than this share of the power of the updates is worth less than it costs.
MOST_KEPT = 0.4
# docs/research/statistics.md: what other values do.
# Noise of the mean of clients' statistics, and the step in which they go down, in deviations.
FINE_NOISE, FINE_DOWN_STEP = 0.055, 0.5
# They go down when their root mean square has moved so far, in deviations: an error down only makes
# the next change up larger.
MOVED = 0.4


@dataclass(frozen=True)
class Updates:
    """Updates of one sender or many, of which lengths and noise are expected.

    Attributes
    ----------
    spreads : Spreads
        Of shape (tensors,), or (senders, tensors).
    sent : Tensors
        What is known of them.
    power : float64, as the spreads
        Sum of the squares of the values of each tensor, 0 of statistics: they are sent finely
        whatever the price, and say nothing of the noise of weights.
    weights : float64, shape () or (senders, 1)
    fine_step : float
        The step of statistics, of which `power` is 0; 0 where there are none.
    reports : bool, shape () or (senders, 1)
        Whether statistics are sent.
    """

    spreads: Spreads
    sent: Tensors
    power: Array
    weights: Array
    fine_step: float
    reports: NDArray[np.bool_]

    def steps(self, steps: Array | float) -> Array | float:
        """Return the step of each tensor: of statistics their own, of all others this one."""
        if not self.fine_step:
            return steps
        return np.where(self._is_fine, self.fine_step, steps)

    def bits(self, steps: Array | float) -> NDArray[np.int64]:
        """Return the width of each tensor, 0 for one that is kept.

        Parameters
        ----------
        steps : float or float64 array
            Quantization step; of shape (senders, 1) if each sender has its own.
        """
        steps = self.steps(steps)
        bits, squares = self.sent.bits(steps), self.weights**2
        noise = squares * self.sent.errors(steps)
        gain = self.sent.elements * self.sent.rms**2 * (KEPT * self.weights - noise)
        # The noise that a bit is worth at the price that makes this step.
        worth = np.square(steps) * 2 * log(2) * squares / 4
        pays = (bits >= HEADER_BITS) | (gain > worth * (bits + HEADER_BITS - ZERO_BITS))
        if self.fine_step:
            pays = np.where(self._is_fine, self.reports, pays)
        widths = step_bits(self.spreads.lo, self.spreads.hi, np.asarray(steps))
        return np.where(pays, widths, 0)

    def codes(self, steps: Array | float) -> "Codes":
        """Return what each tensor's codes take at the steps."""
        widths = self.bits(steps)
        is_sent, steps = widths > 0, self.steps(steps)
        return Codes(
            np.where(is_sent, float(HEADER_BITS), ZERO_BITS),
            np.where(is_sent, self.sent.bits(steps), 0.0),
            widths.astype(np.float64) * self.sent.elements,
        )

    def harm(
        self, steps: Array | float, tolerance: float, squares: Array | float | None = None
    ) -> Array:
        """Return the noise in the mean, of what is kept its loss, summed over the tensors.

        All is as much as may be, at the tolerance, if `MOST_KEPT` of the updates is kept. `squares`
        are the squared weights, if not those of the senders: what is left of the noise.
        """
        noise = (self.weights**2 if squares is None else squares) * self.power
        noise = noise * self.sent.errors(steps)
        kept = np.maximum(noise, tolerance / MOST_KEPT * self.weights * self.power)
        harm: Array = np.sum(np.where(self.bits(steps) > 0, noise, kept), axis=-1)
        return harm

    @property
    def _is_fine(self) -> NDArray[np.bool_]:
        last: NDArray[np.bool_] = np.arange(self.sent.elements.size) == self.sent.elements.size - 1
        return last


def updates(
    spreads: Spreads,
    state: RoundState,
    weights: Array | float,
    reports: NDArray[np.bool_] | bool = True,
) -> Updates:
    """Return the updates of one sender or many, of the weights given."""
    sent = tensors(spreads, state.spec.elements, nearest=False)
    power = np.array(state.spec.coded_elements) * sent.rms**2
    fine = FINE_NOISE / UPLINK * (6 / state.squared_reports) ** 0.5
    return Updates(
        spreads,
        sent,
        power,
        np.asarray(weights, np.float64),
        fine if state.spec.has_statistics else 0.0,
        np.asarray(reports, np.bool_),
    )


def mean_power(state: RoundState, ranges: Mapping[str, tuple[Spread, ...]]) -> float:
    """Return the sum of the squares of an update, the weighted mean of all that are given."""
    known = sorted(ranges)
    if not known:
        return 0.0
    weights = np.array([state.clients[name].weight for name in known])
    sent = updates(stacked([ranges[name] for name in known]), state, weights[:, None])
    return float(np.sum(sent.weights * sent.power) / np.sum(weights))


def foreseen(state: RoundState, spreads: Spreads, steps: Array) -> dict[str, Bits]:
    """Return the bits of every client, if its update has these spreads."""
    weights = np.array([client.weight for client in state.clients.values()])
    reports = np.array([client.reports for client in state.clients.values()])
    bits = updates(spreads, state, weights[:, None], reports[:, None]).bits(steps[:, None])
    return dict(zip(state.clients, map(tuple, bits.tolist()), strict=True))


def uplink_grant(sent: Updates, step: float) -> Grant:
    """Return the grant of an update, but for small tensors that are not worth their bits.

    What is left out is kept by the client and comes with its next update.
    """
    return step_grant(sent.bits(step), sent.steps(step))


def downlink_steps(state: RoundState, step: float) -> Array:
    """Return the step of each tensor that goes down: of statistics their own.

    It is infinite while they have moved too little to go down.
    """
    steps = np.full(len(state.spec.tensors), step)
    if state.differences and state.spec.has_statistics:
        moved = float(root_mean_square(state.downlink_ranges[-1]))
        steps[-1] = FINE_DOWN_STEP / DOWNLINK if moved >= MOVED / DOWNLINK else inf
    return steps


def downlink_grant(state: RoundState, step: float) -> Grant:
    """Return the grant of what goes down, but for differences that would be rounded to zero."""
    spreads, steps = arrays(state.downlink_ranges), downlink_steps(state, step)
    sent = np.maximum(-spreads.lo, spreads.hi) >= (steps / 2 if state.differences else 0.0)
    return step_grant(np.where(sent, step_bits(spreads.lo, spreads.hi, steps), 0), steps)


def step_grant(bits: NDArray[np.int64], steps: Array | float) -> Grant:
    """Return a grant of these steps, but for tensors of no bits."""
    return Grant(tuple(bits.tolist()), tuple(np.where(bits > 0, steps, 0.0).tolist()))
