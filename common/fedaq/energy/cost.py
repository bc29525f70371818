"""What communication costs: joules for every payload bit, in each direction."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, log1p

# Deeper fades are charged like this one: 20 dB below the mean, 1 % of all rounds.
FADING_FLOOR = 0.01
# A link that costs more is no link; what a client states is held to the same bound.
MAX_J_PER_BIT = 1.0


@dataclass(frozen=True)
class RadioCost:
    """Joules per bit of one client's link.

    Attributes
    ----------
    uplink_j_per_bit : float
        Spent by the client to send a bit.
    downlink_j_per_bit : float
        Spent by the serving side to send a bit to this client.
    receive_j_per_bit : float
        Spent by the client to listen to a bit.
    money_per_byte : float
        What the client's tariff asks for a payload byte, either way.
    """

    uplink_j_per_bit: float
    downlink_j_per_bit: float
    receive_j_per_bit: float = 0.0
    money_per_byte: float = 0.0


def checked_cost(cost: RadioCost) -> RadioCost:
    """Return the cost if a link can have it.

    Raises
    ------
    ValueError
        If a direction costs nothing, or a bit costs `MAX_J_PER_BIT` or more.
    """
    # An optimizer that buys bits would buy free ones without end. NaN fails every test.
    if not 0 < cost.uplink_j_per_bit < MAX_J_PER_BIT:
        raise ValueError(
            f"the uplink costs {cost.uplink_j_per_bit:g} J/bit; "
            f"more than 0, less than {MAX_J_PER_BIT:g} is possible"
        )
    ends = (cost.downlink_j_per_bit, cost.receive_j_per_bit)
    if not (all(0 <= end < MAX_J_PER_BIT for end in ends) and sum(ends) > 0):
        raise ValueError(
            f"the downlink costs {ends[0]:g} J/bit to send and {ends[1]:g} to receive; "
            f"each may be 0, but not both, and must be less than {MAX_J_PER_BIT:g}"
        )
    return cost


def downlink_j_per_bit(receivers: Sequence[RadioCost], *, broadcast: bool) -> float:
    """Return the joules to bring one bit of the model to all `receivers`.

    A broadcast is sent once, for the receiver that is dearest to reach; unicast is
    sent to each in turn. Either way every receiver pays to listen.
    """
    if not receivers:
        return 0.0
    sending = [radio.downlink_j_per_bit for radio in receivers]
    listening = sum(radio.receive_j_per_bit for radio in receivers)
    return (max(sending) if broadcast else sum(sending)) + listening


def shannon_rate_bps(
    *,
    bandwidth_hz: float,
    transmit_power_w: float,
    distance_m: float,
    noise_w_per_hz: float,
    gain_at_1m: float,
    path_loss_exponent: float,
    fading_gain: float = 1.0,
) -> float:
    """Return the capacity ``B log2(1 + P g h / (N0 B))`` of a link, in bits per second.

    Shannon, "A Mathematical Theory of Communication" (1948), theorem 17, with the
    log-distance channel gain ``g = gain_at_1m * distance**-path_loss_exponent`` and the
    power gain ``h`` of the fading.
    """
    gain = gain_at_1m * distance_m**-path_loss_exponent * fading_gain
    snr = transmit_power_w * gain / (noise_w_per_hz * bandwidth_hz)
    return bandwidth_hz * log1p(snr) / log(2)


def client_distance_m(seed: int, client: str, min_m: float, max_m: float) -> float:
    """Return a client's distance from the server's radio, uniform between two bounds.

    It depends on the run's seed and the client's name only.
    """
    return min_m + (max_m - min_m) * _uniform(seed, "distance", client)


def rayleigh_power_gain(seed: int, client: str, round_number: int) -> float:
    """Return the power gain of Rayleigh block fading: exponential with mean 1, per round.

    Tse and Viswanath, "Fundamentals of Wireless Communication" (2005), section 2.4.2.
    Gains under `FADING_FLOOR` are raised to it, so that no bit costs infinite energy.
    """
    return max(FADING_FLOOR, -log1p(-_uniform(seed, "fading", client, round_number)))


def _uniform(seed: int, *path: str | int) -> float:
    """Return a number in [0, 1) that depends on the path only, never on what was drawn before."""
    # Here, because it brings numpy and the codec, which `fedaq radio` has no use for.
    from fedaq.codec.quantizer import derive_seed

    return (derive_seed(seed, *path) >> 10) / 2**53
