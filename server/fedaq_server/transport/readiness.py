"""What clients say of their readiness, and who is told of it."""

import logging
import time

import grpc

from fedaq import declines
from fedaq.codec.model import DIGEST_BYTES
from fedaq.declines import Decline
from fedaq.process.logs import event
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.identity.caller import JoinRefusedError
from fedaq_server.metrics import Metrics
from fedaq_server.transport.client import Client
from fedaq_server.transport.roster import Roster

log = logging.getLogger(__name__)


async def heard(roster: Roster, metrics: Metrics, client: Client, said: pb.Readiness) -> None:
    """Take note of whether a client is ready, and of what it holds.

    Raises
    ------
    JoinRefusedError
        If that is no digest.
    """
    if len(said.holds) > DIGEST_BYTES:
        raise JoinRefusedError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"a digest of {len(said.holds)} bytes; it has {DIGEST_BYTES}",
        )
    client.last_seen = time.monotonic()
    client.holds = said.holds or client.holds
    if client.relayed is not None and said.HasField("relayed"):
        client.stands_for(said.relayed)
    before, now = client.declined, declines.from_message(said)
    if now != before:
        await roster.declare(client, now)
        tell_of(metrics, client, before)


def tell_of(metrics: Metrics, client: Client, before: Decline | None = None) -> None:
    """Tell of a client that declines for a new reason, or is ready again."""
    now = client.declined
    if now is None and before is not None:
        log.info("%s is ready again", client.name, extra=event("client ready", client=client.name))
    elif now is not None and (before is None or before.reason != now.reason):
        metrics.declined.labels(now.reason).inc()
        log.info(
            "%s declines: %s", client.name, now,
            extra=event("client declined", client=client.name, reason=str(now.reason),
                        detail=now.detail),
        )  # fmt: skip
