"""What a client tells its program of, in the order in which it happens."""

from dataclasses import dataclass

from fedaq.declines import Reason


@dataclass(frozen=True)
class Joined:
    """The server let the client in: at first, and whenever it came back."""

    name: str


@dataclass(frozen=True)
class Declined:
    """The program said that the device is not ready; the server was told why."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class RoundBegun:
    """A round was opened to the client, and it takes part; the model comes next."""

    round: int
    rounds: int


@dataclass(frozen=True)
class Trained:
    """The training of a round is over; the loss is its mean."""

    round: int
    loss: float


@dataclass(frozen=True)
class Sent:
    """The update of a round arrived and counts.

    Attributes
    ----------
    round, rounds : int
    train_loss : float
    uplink_bits, downlink_bits : float
        Bits per value that were sent.
    """

    round: int
    rounds: int
    train_loss: float
    uplink_bits: float
    downlink_bits: float


@dataclass(frozen=True)
class Refused:
    """The update of a round does not count.

    Attributes
    ----------
    round : int
    reason : str
        As in docs/reference/wire-format.md, for example ``deadline``.
    message : str
        The server's sentence, or what was wrong with the training.
    """

    round: int
    reason: str
    message: str


Event = Joined | Declined | RoundBegun | Trained | Sent | Refused
