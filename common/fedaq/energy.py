"""What communication costs: joules for every payload bit, in each direction."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2


@dataclass(frozen=True)
class RadioCost:
    """Joules per bit of one client's link.

    Attributes
    ----------
    uplink_j_per_bit : float
        Spent by the client to send a bit.
    downlink_j_per_bit : float
        Spent by the server to send a bit to this client.
    """

    uplink_j_per_bit: float
    downlink_j_per_bit: float


def shannon_rate_bps(
    *,
    bandwidth_hz: float,
    transmit_power_w: float,
    distance_m: float,
    noise_w_per_hz: float,
    gain_at_1m: float,
    path_loss_exponent: float,
) -> float:
    """Return the capacity ``B log2(1 + P g / (N0 B))`` of a link, in bits per second.

    Shannon, "A Mathematical Theory of Communication" (1948), theorem 17, with the
    log-distance channel gain ``g = gain_at_1m * distance**-path_loss_exponent``.
    """
    gain = gain_at_1m * distance_m**-path_loss_exponent
    return bandwidth_hz * log2(1 + transmit_power_w * gain / (noise_w_per_hz * bandwidth_hz))


def downlink_j_per_bit(receivers: Sequence[RadioCost], *, broadcast: bool) -> float:
    """Return the joules to bring one bit of the model to all `receivers`.

    A broadcast is sent once, for the receiver that is dearest to reach; unicast is
    sent to each in turn.
    """
    costs = [radio.downlink_j_per_bit for radio in receivers]
    if not costs:
        return 0.0
    return max(costs) if broadcast else sum(costs)
