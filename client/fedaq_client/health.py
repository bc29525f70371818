"""``fedaq health``: a health check in one line, for containers and scripts."""

from typing import Annotated

import typer


def health(
    server: Annotated[str, typer.Argument(help="Address of the server, host:port.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 5.0,
) -> None:
    """Ask a server whether it takes clients; exit with 0 if it does, with 1 if not.

    Example: fedaq health 192.168.1.10:50051
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from fedaq.errors import FedaqError
    from fedaq.link import SERVICE

    request = health_pb2.HealthCheckRequest(service=SERVICE)
    try:
        with grpc.insecure_channel(server) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
    except grpc.RpcError as error:
        raise FedaqError(f"{server}: {error.details() or error.code().name}") from None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise FedaqError(f"{server}: {status}")
    print(f"{server}: {status}")
