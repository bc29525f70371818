"""FedAQ (arXiv 2406.18156): uplink and downlink adapted together.

A constant resolution per direction: update ranges shrink as training converges, so
uplink bits fall; weight ranges grow, so downlink bits rise.
"""

from dataclasses import dataclass

from fedaq.payload import Bits
from fedaq.quantizer import Range
from fedaq.settings import FedaqSettings, Settings
from fedaq_server.optimizer import resolution_bits
from fedaq_server.schemes import ClientState, Outcome, Plan, RoundState


@dataclass(frozen=True)
class Fedaq:
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
        return Plan(downlink, uplink)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Range, ...]
    ) -> Bits:
        """Choose uplink bits from the ranges of this very update."""
        return self._uplink(ranges)

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing: the resolutions are constant."""

    def _uplink(self, ranges: tuple[Range, ...]) -> Bits:
        return self._bits(ranges, self.settings.uplink_resolution)

    def _bits(self, ranges: tuple[Range, ...], resolution: float) -> Bits:
        return resolution_bits(ranges, resolution, self.settings.min_bits, self.settings.max_bits)


def fedaq(settings: Settings) -> Fedaq:
    """Return the scheme ``fedaq`` with the resolutions of the settings."""
    return Fedaq(settings.fedaq)
