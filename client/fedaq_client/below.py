"""What a session asks of a relay, which has clients of its own in the place of data."""

from typing import Protocol

from fedaq.tasks import Training
from fedaq.v1 import federation_pb2 as pb


class Below(Protocol):
    """The clients for whom a session speaks."""

    def begin(self, welcome: pb.Welcome, training: Training) -> None:
        """Take note of the run that the server has let it into, at first and whenever it is back.

        Raises
        ------
        UserError
            If it cannot relay that run.
        """

    def standing(self) -> pb.Relayed:
        """Return who is ready now."""

    async def update(self, plan: pb.RoundPlan) -> pb.RangeReport:
        """Leave the update of a round in the learner; return what is to be reported of it.

        Raises
        ------
        GivenUpError
            If there is none.
        """
