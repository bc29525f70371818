"""FedDQ (arXiv 2110.02291): fewer uplink bits as the ranges of the updates shrink."""

from dataclasses import dataclass
from math import ceil, log2

from fedaq.codec.payload import Bits
from fedaq.codec.quantizer import MAX_BITS, MIN_BITS, Range
from fedaq.settings import FeddqSettings, Settings
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState


def descending_bits(width: float, resolution: float) -> int:
    """Return ``ceil(log2(R / r))``, within the widths of the wire (arXiv 2110.02291).

    Parameters
    ----------
    width : float
        ``R >= 0``, the width of the range of the update.
    resolution : float
        ``r > 0``, in the same unit.
    """
    wanted = log2(max(width / resolution, 1.0))
    return max(MIN_BITS, ceil(min(wanted, MAX_BITS)))


@dataclass(frozen=True)
class Feddq:
    """Uplink bits from the range of each tensor of each update."""

    settings: FeddqSettings

    def plan(self, state: RoundState) -> Plan:
        """Announce the bits that the last updates would have got."""
        tensors = len(state.spec.tensors)
        uplink = {
            name: self._bits(client.ranges) if client.ranges else (MAX_BITS,) * tensors
            for name, client in state.clients.items()
        }
        return Plan(Grant((self.settings.downlink_bits,) * tensors), uplink)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Range, ...]
    ) -> Grant:
        """Choose the bits from the ranges of this very update."""
        return Grant(self._bits(ranges))

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing: the resolution is constant."""

    def _bits(self, ranges: tuple[Range, ...]) -> Bits:
        return tuple(descending_bits(bounds.width, self.settings.resolution) for bounds in ranges)


def feddq(settings: Settings) -> Feddq:
    """Return the scheme ``feddq`` with the resolution of the settings."""
    return Feddq(settings.feddq)
