"""What ends a session, or a round of one."""

from fedaq.declines import Decline
from fedaq.errors import FedaqError, reason_name
from fedaq.v1 import federation_pb2 as pb


class FinishedError(Exception):
    """The server said that the run is over."""


class ServerStoppedError(FedaqError):
    """The server stopped in the middle of the run; it may come back."""


class SupersededError(Exception):
    """The server went on to a new round without this client."""

    def __init__(self, plan: pb.RoundPlan) -> None:
        super().__init__(f"round {plan.round} has begun")
        self.plan = plan


class RefusedError(Exception):
    """The server refused this round's update."""

    def __init__(self, refusal: pb.Refusal) -> None:
        super().__init__(refusal.message)
        self.reason = reason_name(refusal.reason)


class GivenUpError(Exception):
    """There is no update of this round on this side; the next round is open to it."""

    def __init__(self, decline: Decline) -> None:
        super().__init__(str(decline))
        self.decline = decline
