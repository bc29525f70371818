"""The largest values of each tensor, both ways, and the rest with the next transfer.

Sparse ternary compression (arXiv 1903.02891), and top-k with error feedback. Which values are
kept is not decided here: senders leave the others out before they say what their ranges are
(`fedaq.codec.sparse`). What is left is the step in which the others are coded.
"""

from dataclasses import dataclass

import numpy as np

from fedaq.codec.model import Kind, ModelSpec
from fedaq.codec.payload import Bits, step_bits
from fedaq.codec.quantizer import Spread
from fedaq.codec.sparse import Sparsity
from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq_server.schemes.scheme import (
    LEAST_STATISTICS_BITS,
    ClientState,
    Grant,
    Outcome,
    Plan,
    RoundState,
)
from fedaq_server.schemes.spreads import arrays

# With --from, clients are sent before the first round what they lack, with nothing left out and
# in so many steps on either side of 0; what that loses is in the next difference.
START_LEVELS = 127


@dataclass(frozen=True)
class Sparse:
    """Steps from the largest value of each tensor.

    Attributes
    ----------
    levels : int
        Steps from 0 to that value; 1 where all values that are kept have one magnitude.
    """

    levels: int

    def plan(self, state: RoundState) -> Plan:
        """Choose the steps of what goes down; foresee the bits of the last updates."""
        unknown: Bits = ((2 * self.levels).bit_length(),) * len(state.spec.tensors)
        foreseen = {
            name: step_grant(state.spec, client.ranges, self.levels).bits
            if client.ranges
            else unknown
            for name, client in state.clients.items()
        }
        levels = START_LEVELS if state.round == 1 else self.levels
        return Plan(step_grant(state.spec, state.downlink_ranges, levels), foreseen)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Choose the steps from the ranges of this very update."""
        return step_grant(state.spec, ranges, self.levels)

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing: what is kept is constant."""


def step_grant(spec: ModelSpec, ranges: tuple[Spread, ...], levels: int) -> Grant:
    """Return the grant with which so many steps reach the largest value of each tensor."""
    spreads = arrays(ranges)
    largest = np.maximum(-spreads.lo, spreads.hi)
    rounded = (largest / levels).astype(np.float32)
    # So many steps reach it, even if they were rounded down.
    short = rounded.astype(np.float64) * levels < largest
    above = np.nextafter(rounded, np.float32(np.inf))
    steps = np.where(short, above, rounded).astype(np.float64)
    bits: Bits = tuple(step_bits(spreads.lo, spreads.hi, steps).tolist())
    if spec.tensors[-1].kind == Kind.STATISTICS:
        # Of them nothing is left out, and nothing is kept for later.
        bits, steps[-1] = (*bits[:-1], LEAST_STATISTICS_BITS), 0.0
    return Grant(bits, tuple(steps.tolist()))


def sparsity_of(settings: Settings) -> Sparsity | None:
    """Return what is kept of each tensor, both ways; None for everything."""
    if settings.scheme == "stc":
        return Sparsity(settings.stc.fraction, ternary=True)
    if settings.scheme == "topk":
        return Sparsity(settings.topk.fraction, ternary=False)
    return None


def stc(settings: Settings) -> Sparse:
    """Return the scheme ``stc``: values that are kept have one magnitude.

    Raises
    ------
    UserError
        If the settings leave nothing to which what is left out can be added.
    """
    _check(settings)
    return Sparse(1)


def topk(settings: Settings) -> Sparse:
    """Return the scheme ``topk``, with the bits of the settings.

    Raises
    ------
    UserError
        As `stc`.
    """
    _check(settings)
    return Sparse(2 ** (settings.topk.bits - 1) - 1)


def _check(settings: Settings) -> None:
    if not settings.differences:
        raise UserError(
            f"coding.downlink=model: scheme {settings.scheme} sends a part of what clients lack, "
            "never the model; leave it out"
        )
    if settings.added_to != "exact":
        raise UserError(
            f"base=broadcast: with scheme {settings.scheme} it would forget what was left out; "
            "leave it out"
        )
