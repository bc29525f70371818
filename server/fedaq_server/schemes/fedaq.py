"""FedAQ (arXiv 2406.18156): uplink and downlink adapted together.

With a budget (``energy.budget_j``) one price of a joule sets every bit-length of the run
(`fedaq_server.schemes.budget`). Without one, each direction has a constant resolution:
update ranges shrink as training converges, so uplink bits fall; weight ranges grow, so
downlink bits rise.
"""

from dataclasses import dataclass

from fedaq.payload import Bits
from fedaq.quantizer import Spread
from fedaq.settings import FedaqSettings, Settings
from fedaq_server.optimizer import resolution_bits
from fedaq_server.schemes import ClientState, Outcome, Plan, RoundState, Scheme
from fedaq_server.schemes.budget import Budget


@dataclass(frozen=True)
class Resolution:
    """Bits from the ranges of what is sent and one resolution per direction."""

    settings: FedaqSettings

    def plan(self, state: RoundState) -> Plan:
        """Choose downlink bits from the weights, uplink bits from the last updates."""
        downlink = self._bits(state.weight_ranges, self.settings.downlink_resolution)
        uplink = {
            name: self._uplink(client.ranges)
            if client.ranges is not None
            else (self.settings.max_bits,) * len(state.spec.tensors)
            for name, client in state.clients.items()
        }
        return Plan(downlink, uplink, clip=self.settings.clip)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Bits:
        """Choose uplink bits from the ranges of this very update."""
        return self._uplink(ranges)

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing: the resolutions are constant."""

    def _uplink(self, ranges: tuple[Spread, ...]) -> Bits:
        return self._bits(ranges, self.settings.uplink_resolution)

    def _bits(self, ranges: tuple[Spread, ...], resolution: float) -> Bits:
        return resolution_bits(
            ranges,
            resolution,
            clip=self.settings.clip,
            min_bits=self.settings.min_bits,
            max_bits=self.settings.max_bits,
        )


def fedaq(settings: Settings) -> Scheme:
    """Return the scheme ``fedaq``: by budget if the settings have one, else by resolution."""
    if settings.energy.budget_j is not None:
        return Budget(settings.energy.budget_j, settings.fedaq)
    return Resolution(settings.fedaq)
