"""Whose fault a refusal is, and what follows for a client from its own."""

import logging

from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.conduct import Conduct
from fedaq_server.transport.client import Client
from fedaq_server.transport.roster import Roster

log = logging.getLogger(__name__)

# What befalls an honest client on a slow machine or a poor link.
FORGIVEN = frozenset(
    {
        pb.REFUSAL_REASON_STALE_ROUND,
        pb.REFUSAL_REASON_DEADLINE,
        pb.REFUSAL_REASON_OTHER_MODEL,
        pb.REFUSAL_REASON_TOO_FEW,
    }
)
# What an update may be refused for that follows the protocol.
OF_VALUES = frozenset(
    {
        pb.REFUSAL_REASON_NOT_FINITE,
        pb.REFUSAL_REASON_OUT_OF_RANGE,
        pb.REFUSAL_REASON_NORM,
    }
)


class TrainingFailedError(ProtocolError):
    """A client said itself that its update is none; that is no fault."""


def is_fault(error: ProtocolError) -> bool:
    """Tell whether a refusal is the client's own fault."""
    return error.reason not in FORGIVEN and not isinstance(error, TrainingFailedError)


async def blame(conduct: Conduct, roster: Roster, client: Client, reason: str) -> None:
    """Count a refusal against a client, and part with it if that was one too many."""
    shut_out = conduct.strike(client.name, client.round, reason)
    if shut_out is not None:
        log.warning("round %d: %s is %s", shut_out.round, client.name, shut_out.reason)
        await roster.expel(client, shut_out.reason)
