"""Why a client takes no part for a while, in the client's words and on the wire."""

from dataclasses import dataclass
from enum import StrEnum

from fedaq.errors import printable
from fedaq.v1 import federation_pb2 as pb

# Characters of a detail that are kept.
LONGEST_DETAIL = 100


class Reason(StrEnum):
    """Why a device declines."""

    BATTERY = "battery"
    METERED = "metered"
    BUSY = "busy"
    OTHER = "other"
    EMPTY = "empty"


@dataclass(frozen=True)
class Decline:
    """A device takes no part in rounds until it says otherwise.

    Attributes
    ----------
    reason : Reason
        Or its value: ``Decline("battery")``.
    detail : str
        For the server's operator, for example ``12 %``; 100 characters are kept.

    Raises
    ------
    ValueError
        If there is no such reason.
    """

    reason: Reason
    detail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", Reason(self.reason))
        object.__setattr__(self, "detail", printable(self.detail[:LONGEST_DETAIL]))

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else str(self.reason)


def to_message(decline: Decline | None, holds: bytes = b"") -> pb.Readiness:
    """Return what a client says: that it declines, or that it is ready."""
    if decline is None:
        return pb.Readiness(holds=holds)
    return pb.Readiness(
        declined=f"DECLINE_REASON_{decline.reason.name}", detail=decline.detail, holds=holds
    )


def from_message(message: pb.Readiness) -> Decline | None:
    """Return what a client said; a reason of a newer one is `Reason.OTHER`."""
    if not message.declined:
        return None
    known = {pb.DeclineReason.Value(f"DECLINE_REASON_{reason.name}"): reason for reason in Reason}
    return Decline(known.get(message.declined, Reason.OTHER), message.detail)
