"""FedAQ without a budget and without steps: from the noise that each model's own updates bear."""

from dataclasses import dataclass
from math import inf

import numpy as np

from fedaq.codec.quantizer import Spread
from fedaq.settings.schemes import CODED_UPLINK
from fedaq_server.schemes.expected import coarsest_step, start_step
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState
from fedaq_server.schemes.spreads import arrays, stacked
from fedaq_server.schemes.step_grants import downlink_grant, foreseen, updates, uplink_grant

# docs/research/resolutions.md: what other values do.
# Noise in the mean update over its mean square, where updates are largest.
NOISE = 0.3
# The most that it may become while they shrink.
MOST_NOISE = 3.0


@dataclass
class CodedNoise:
    """One step for all updates: the one that brings so much noise to the largest of them.

    While updates grow, so does the step. When they shrink it stays, as a constant resolution does,
    until noise would drown them. What goes down has ``sqrt(sum_i p_i**2)`` of it, as at one price.

    Attributes
    ----------
    uplink : float, optional
        The step, in the unit of the weights; None before the first update.
    """

    uplink: float | None = None
    _state: RoundState | None = None

    def plan(self, state: RoundState) -> Plan:
        """Give every tensor the step of the downlink; foresee the bits of the last updates."""
        self._state = state
        step = self.uplink or CODED_UPLINK
        spreads = [client.ranges or state.first_ranges for client in state.clients.values()]
        down = state.squared_weights**0.5 * step
        if self.uplink is None:
            down = start_step(state) or down
        steps = np.full(len(state.clients), step)
        return Plan(downlink_grant(state, down), foreseen(state, stacked(spreads), steps))

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Give every tensor the step, or a finer one that does not drown this update."""
        sent = updates(arrays(ranges), state, client.weight)
        if self.uplink is None:
            step = coarsest_step(state, client, sent, NOISE, inf)
        else:
            step = coarsest_step(state, client, sent, MOST_NOISE, self.uplink)
        return uplink_grant(state, client, ranges, step)

    def learn(self, outcome: Outcome) -> None:
        """Take note of how large updates are."""
        state = self._state
        assert state is not None
        steps = [
            coarsest_step(state, client, updates(arrays(ranges), state, client.weight), NOISE, inf)
            for name, ranges in sorted(outcome.update_ranges.items())
            if (client := state.clients[name])
        ]
        if steps:
            self.uplink = max(self.uplink or 0.0, sum(steps) / len(steps))
