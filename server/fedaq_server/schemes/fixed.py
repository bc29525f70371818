"""The same bits in every round: FedPAQ (arXiv 1909.13014), and plain FedAvg as fp32."""

from dataclasses import dataclass

from fedaq.codec.quantizer import RAW_BITS, Range
from fedaq.settings import Settings
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState


@dataclass(frozen=True)
class Fixed:
    """Constant bit-lengths, the same for every tensor and client."""

    uplink_bits: int
    downlink_bits: int
    clip: bool = False

    def plan(self, state: RoundState) -> Plan:
        """Give every tensor the same bits."""
        tensors = len(state.spec.tensors)
        uplink = (self.uplink_bits,) * tensors
        downlink = (self.downlink_bits,) * tensors
        return Plan(Grant(downlink), dict.fromkeys(state.clients, uplink), clip=self.clip)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Range, ...]
    ) -> Grant:
        """Grant what was planned."""
        return Grant(plan.uplink_bits[client.name])

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing: the bits are fixed."""


def fixed(settings: Settings) -> Fixed:
    """Return the scheme ``fixed``, 8 bits each way unless told otherwise."""
    chosen = settings.fixed
    return Fixed(chosen.uplink_bits, chosen.downlink_bits, chosen.clip)


def fp32(settings: Settings) -> Fixed:
    """Return the scheme ``fp32``: nothing is quantized."""
    return Fixed(RAW_BITS, RAW_BITS)
