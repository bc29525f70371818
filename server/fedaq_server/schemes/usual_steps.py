"""Quantization steps that no budget asks for: set, or from the noise that updates bear.

Steps that are set have the unit of the weights. Noise has none: it is judged by what each model's
own updates are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedaq.codec.quantizer import Spread
from fedaq.settings.schemes import CODED_UPLINK
from fedaq_server.schemes.code_lengths import COARSEST
from fedaq_server.schemes.crowd import crowd_of, noise_down
from fedaq_server.schemes.expected import FIRST_UPDATE, coarsest_step, coarsest_steps, start_step
from fedaq_server.schemes.scheme import ClientState, RoundState
from fedaq_server.schemes.spending import known_spreads
from fedaq_server.schemes.spreads import arrays, stacked
from fedaq_server.schemes.step_grants import Updates, updates

# docs/research/resolutions.md: what other values do.
# Noise in the mean update over its mean square, where updates are largest.
NOISE = 0.3
# The most that it may become while they shrink.
MOST_NOISE = 3.0


@dataclass(frozen=True)
class ConstantSteps:
    """One step per direction, the same in all rounds.

    Attributes
    ----------
    uplink, downlink : float
        In the unit of the weights.
    """

    uplink: float
    downlink: float

    def steps(self, state: RoundState) -> tuple[float, float]:
        """Return the step of updates, and that of what goes down."""
        return self.uplink, self.downlink

    def step(self, state: RoundState, client: ClientState, sent: Updates) -> float:
        """Return the step of an update."""
        return self.uplink


@dataclass(frozen=True)
class NoiseSteps:
    """One step for all updates: the one that brings so much noise to the largest of them.

    While updates grow, so does the step. When they shrink it stays, as a constant one does, until
    noise would drown them. What goes down has ``sqrt(sum_i p_i**2)`` of it, as at one price.

    Attributes
    ----------
    uplink : float, optional
        The step, in the unit of the weights; None before the first update.
    crowd : float
        Of the last rounds (`crowd_of`), smoothed: so much of the noise is borne.
    """

    uplink: float | None
    crowd: float = 1.0

    def steps(self, state: RoundState) -> tuple[float, float]:
        """Return the step of updates, and that of what goes down."""
        up = self.uplink or _guess(state)
        down = noise_down(state.squared_weights) * up
        return up, down if self.uplink else start_step(state) or down

    def step(self, state: RoundState, client: ClientState, sent: Updates) -> float:
        """Return the step, or a finer one that does not drown this update."""
        if self.uplink is None:
            return _of_noise(state, client, sent) or CODED_UPLINK
        return coarsest_step(state, client, sent, MOST_NOISE * self.crowd, self.uplink)

    def learned(
        self,
        state: RoundState,
        ranges: Mapping[str, tuple[Spread, ...]],
        mean_power: float | None = None,
    ) -> "NoiseSteps":
        """Return what follows from the updates of a round.

        Parameters
        ----------
        state : RoundState
            Of the round.
        ranges : mapping of str to tuple of Spread
            Of the updates that arrived.
        mean_power : float, optional
            Of their mean, as it was decoded.
        """
        # An update of zeros bears no noise, and takes none.
        names = [name for name in sorted(ranges) if any(map(_is_any, ranges[name]))]
        if not names:
            return self
        # All at once: one by one, a thousand clients would take as long as the rest of a round.
        weights = np.array([state.clients[name].weight for name in names])
        sent = updates(stacked([ranges[name] for name in names]), state, weights[:, None])
        largest = COARSEST * np.max(sent.sent.rms, axis=-1)
        crowd = self.crowd
        if mean_power is not None:
            tolerance, most = (
                (NOISE, largest)
                if self.uplink is None
                else (MOST_NOISE * crowd, np.full(len(names), self.uplink))
            )
            granted = coarsest_steps(state, weights, sent, tolerance, most)
            crowd = (crowd * crowd_of(sent, granted, mean_power)) ** 0.5
        steps: list[float] = coarsest_steps(state, weights, sent, NOISE * crowd, largest).tolist()
        return NoiseSteps(max(self.uplink or 0.0, sum(steps) / len(steps)), crowd)


def _is_any(spread: Spread) -> bool:
    return spread.mean != 0 or spread.deviation > 0


def _guess(state: RoundState) -> float:
    """Return a step for updates that nobody has seen."""
    client = next(iter(state.clients.values()))
    sent = updates(arrays(known_spreads(state, FIRST_UPDATE)[0]), state, client.weight)
    return _of_noise(state, client, sent) or CODED_UPLINK


def _of_noise(state: RoundState, client: ClientState, sent: Updates) -> float:
    """Return the coarsest step that is known to bring no more than `NOISE`; 0 for zeros."""
    largest = float(np.max(sent.sent.rms))
    return coarsest_step(state, client, sent, NOISE, COARSEST * largest) if largest else 0.0
