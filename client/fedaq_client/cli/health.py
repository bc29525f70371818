"""``fedaq health``: a health check in one line, for containers and scripts."""

from pathlib import Path
from typing import Annotated

import typer


def health(
    server: Annotated[str, typer.Argument(help="Address of the server, host:port.")],
    tls: Annotated[
        Path | None, typer.Option(help="Folder with ca.crt and the certificate of a client.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 5.0,
) -> None:
    """Ask a server whether it takes clients; exit with 0 if it does, with 1 if not.

    The server is reached directly, without a proxy.

    Example: fedaq health 192.168.1.10:50051 --tls client-1
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from fedaq.errors import FedaqError, UserError
    from fedaq.net.addresses import server_address
    from fedaq.net.credentials import client_certificates
    from fedaq.net.grpc_options import DIRECT, SERVICE
    from fedaq_client.transport.connection import credentials_of

    try:
        server = server_address(server)
    except ValueError as error:
        raise UserError(f"{server}: {error}") from None
    certificates = None if tls is None else client_certificates(tls)
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    try:
        with (
            grpc.insecure_channel(server, [DIRECT])
            if certificates is None
            else grpc.secure_channel(server, credentials_of(certificates), [DIRECT])
        ) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            raise FedaqError(
                f"{server}: no server answers there; fedaq doctor client --server {server} finds "
                "out why"
            ) from None
        raise FedaqError(f"{server}: {error.details() or error.code().name}") from None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise FedaqError(f"{server}: {status}")
    print(f"{server}: {status}")
