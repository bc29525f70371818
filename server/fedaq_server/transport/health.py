"""gRPC health checking and server reflection, for probes and for tools such as grpcurl."""

import asyncio
from contextlib import suppress

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedaq.net.grpc_options import SERVICE
from fedaq.v1 import federation_pb2 as pb

NOTICE_S = 1.0


class Health:
    """What health checks are told: that the server takes clients, until `stop`.

    Parameters
    ----------
    server : grpc.aio.Server
        Not started yet; it also gets reflection.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        assert pb.DESCRIPTOR.services_by_name["Federation"].full_name == SERVICE
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )

    async def start(self) -> None:
        """Say that the server takes clients."""
        await self._servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Say that it takes none any more."""
        # A watcher that reads nothing holds the servicer's lock.
        with suppress(TimeoutError):
            async with asyncio.timeout(NOTICE_S):
                await self._servicer.enter_graceful_shutdown()
