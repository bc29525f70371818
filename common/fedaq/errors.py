"""The errors that a person or a peer is meant to read."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command that only prints its help does without protobuf
    from fedaq.v1 import federation_pb2 as pb

_LONGEST_SENTENCE = 500


def printable(sentence: str) -> str:
    """Return what a peer said, cut to a sentence and cleared of what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in sentence[:_LONGEST_SENTENCE])


class FedaqError(Exception):
    """Something outside the user's hands failed; ends a command with exit code 1."""


class UserError(FedaqError):
    """The user asked for something that cannot be; ends a command with exit code 2.

    The message is one line: what was wrong, where, and what would be right.
    """


class NotFiniteError(FedaqError):
    """A tensor holds NaN or infinity, or a range too wide for float32."""


class ProtocolError(FedaqError):
    """A peer broke the protocol; the message is sent back to it.

    Parameters
    ----------
    reason : RefusalReason
        The machine-readable reason.
    message : str
        One sentence for the peer's operator.
    """

    def __init__(self, reason: "pb.RefusalReason", message: str) -> None:
        super().__init__(message)
        self.reason = reason


def reason_name(reason: int) -> str:
    """Return a refusal's reason as logs and metrics name it, for example ``wrong_shape``."""
    from fedaq.v1 import federation_pb2 as pb

    try:
        name = pb.RefusalReason.Name(reason)
    except ValueError:  # a newer peer's
        return f"reason_{reason}"
    return name.removeprefix("REFUSAL_REASON_").lower()
