"""FedAQ (arXiv 2406.18156): uplink and downlink adapted together.

With budgets (``energy.budget``) one price of a joule sets how fine every transfer is: by steps
where codes are entropy-coded (`fedaq_server.schemes.coded`), by whole bits where they are packed
(`packed_budget` beside it). Without one, each direction has a constant resolution: update ranges
shrink as training converges, so uplink bits fall; weight ranges grow, so downlink bits rise. Where
no setting says which, it is found from the updates (`usual_steps`).
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.quantizer import Spread
from fedaq.energy.budgets import JOULES
from fedaq.errors import UserError
from fedaq.privacy.sizes import MOST_PROOF_BYTES
from fedaq.settings import FedaqSettings, Settings
from fedaq.settings.schemes import CODED_UPLINK
from fedaq_server.schemes.common_grid import CommonGrid
from fedaq_server.schemes.optimizer import resolution_bits
from fedaq_server.schemes.packed_budget import Budget
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState, Scheme
from fedaq_server.schemes.several import CodedBudgets
from fedaq_server.schemes.spreads import Spreads, arrays, stacked

# Resolutions that serve without a budget, in the unit of weights (docs/research/resolutions.md).
PACKED_UPLINK, PACKED_DOWNLINK = 0.03, 0.16
CODED_DIFFERENCE = 0.03


@dataclass(frozen=True)
class Resolution:
    """Bits from the ranges of what is sent and one resolution per direction.

    Attributes
    ----------
    uplink, downlink : float
        The resolutions.
    """

    settings: FedaqSettings
    uplink: float
    downlink: float

    def plan(self, state: RoundState) -> Plan:
        """Choose downlink bits from the weights, uplink bits from the last updates."""
        unknown = (self.settings.max_bits,) * len(state.spec.tensors)
        uplink = dict.fromkeys(state.clients, unknown)
        known = {name: client.ranges for name, client in state.clients.items() if client.ranges}
        if known:
            bits = self._bits(stacked(list(known.values())), self.uplink)
            uplink |= zip(known, map(tuple, bits.tolist()), strict=True)
        return Plan(
            self._grant(state.downlink_ranges, self.downlink), uplink, clip=self.settings.clip
        )

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Choose uplink bits from the ranges of this very update."""
        return self._grant(ranges, self.uplink)

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing: the resolutions are constant."""

    def _grant(self, ranges: tuple[Spread, ...], resolution: float) -> Grant:
        return Grant(tuple(self._bits(arrays(ranges), resolution).tolist()))

    def _bits(self, spreads: Spreads, resolution: float) -> NDArray[np.int64]:
        return resolution_bits(
            spreads,
            resolution,
            clip=self.settings.clip,
            min_bits=self.settings.min_bits,
            max_bits=self.settings.max_bits,
        )


def fedaq(settings: Settings) -> Scheme:
    """Return the scheme ``fedaq``: by budget if the settings have one, else by resolution."""
    budget_j, own = settings.energy.joules, settings.fedaq
    if not settings.entropy and settings.energy.run_budget.keys() - {JOULES}:
        raise UserError(
            "energy.budget: with packed codes (coding.entropy=false) a run has a budget of joules "
            "alone"
        )
    if not settings.entropy and budget_j is not None:
        return Budget(budget_j, own)
    of_run_j = inf if budget_j is None else budget_j
    on_grid = settings.common_grid
    if settings.entropy and settings.differences and own.has_no_steps and not on_grid:
        return CodedBudgets(of_run_j)
    # The steps of a private sum follow from its noise.
    by_gain = on_grid and settings.differences and own.has_no_steps
    constant = settings.is_private or not by_gain
    uplink = own.uplink_resolution or (CODED_UPLINK if settings.entropy else PACKED_UPLINK)
    downlink = own.downlink_resolution or (
        CODED_DIFFERENCE if settings.differences else PACKED_DOWNLINK
    )
    if on_grid:
        return CommonGrid(
            uplink if constant else None,
            downlink if constant else None,
            masked=settings.privacy.secure_aggregation,
            seed=settings.seed,
            _proof_bytes=MOST_PROOF_BYTES if settings.network.proves_certificates else 0,
        )
    if settings.entropy:
        return CodedBudgets(of_run_j, uplink=uplink, downlink=downlink)
    return Resolution(own, uplink, downlink)
