"""What a server may ask of a client: its settings allow no more."""

from collections.abc import Iterable, Sequence
from math import inf

from fedaq.codec.payload import clipped_ranges
from fedaq.codec.quantizer import LARGEST_MAGNITUDE, Range, Spread, is_width
from fedaq.codec.subset import LARGEST_ONE_IN
from fedaq.errors import FedaqError
from fedaq.tasks import Training
from fedaq.tasks.training import from_message
from fedaq.v1 import federation_pb2 as pb

LARGEST_CHUNK_BYTES = 2 * 1024 * 1024
SHORTEST_INTERVAL_S = 0.001
LONGEST_WINDOW_S = 600.0


def checked_training(welcome: pb.Welcome) -> Training:
    """Return what the server asks of the training.

    Raises
    ------
    FedaqError
        If it cannot be.
    """
    try:
        training = from_message(welcome.training)
    except ValueError as error:
        raise FedaqError(f"the server asks for {error}") from None
    if not SHORTEST_INTERVAL_S <= welcome.heartbeat_interval_s < inf:
        raise FedaqError(
            f"the server asks for a heartbeat every {welcome.heartbeat_interval_s:g} s, "
            "which cannot be"
        )
    if not 0 <= welcome.return_window_s <= LONGEST_WINDOW_S:
        raise FedaqError(
            f"the server asks for returns over {welcome.return_window_s:g} s, which cannot be"
        )
    return training


def checked_plan(plan: pb.RoundPlan) -> None:
    """Check what the server asks of an update.

    Raises
    ------
    FedaqError
        If it cannot be.
    """
    if plan.chunk_bytes > LARGEST_CHUNK_BYTES:
        raise FedaqError(f"the server asks for chunks of {plan.chunk_bytes} bytes, which cannot be")
    if plan.HasField("clipping") and not (
        0 < plan.clipping.norm < inf and 0 < plan.clipping.rounded < inf and not plan.keep
    ):
        raise FedaqError(
            f"the server asks for an update of norm {plan.clipping.norm:g}, and "
            f"{plan.clipping.rounded:g} when it is rounded, which cannot be"
        )
    if not 0 <= plan.keep <= 1:
        raise FedaqError(f"the server asks for {plan.keep:g} of an update, which cannot be")
    if plan.one_in > LARGEST_ONE_IN:
        raise FedaqError(f"the server asks for one in {plan.one_in} values, which cannot be")


def is_possible(grant: pb.UplinkGrant, tensors: int) -> bool:
    """Tell whether an update of so many tensors can be coded as granted."""
    return (
        len(grant.uplink_bits) == tensors
        and len(grant.uplink_steps) in (0, tensors)
        and all(bits == 0 or is_width(bits) for bits in grant.uplink_bits)
        and len(grant.uplink_reaches) in (0, tensors)
        and is_grid(grant.uplink_steps, grant.uplink_reaches)
    )


def is_grid(steps: Iterable[float], reaches: Iterable[float]) -> bool:
    """Tell whether these can be quantization steps, and how far codes reach."""
    possible = all(0 <= step < inf for step in steps)
    return possible and all(0 <= reach <= LARGEST_MAGNITUDE for reach in reaches)


def coded_ranges(
    grant: pb.UplinkGrant, spreads: tuple[Spread, ...], *, clip: bool
) -> Sequence[Range]:
    """Return the range of each tensor that is coded: the server's, or the update's own."""
    if grant.uplink_reaches:
        return [Range(-reach, reach) for reach in grant.uplink_reaches]
    return clipped_ranges(spreads, tuple(grant.uplink_bits)) if clip else spreads
