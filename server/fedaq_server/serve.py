"""A run served over gRPC, with its metrics and its page."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from fedaq.net.addresses import joined
from fedaq.net.credentials import server_certificates
from fedaq.process.logs import event
from fedaq.settings import NetworkSettings
from fedaq_server.identity.access import access_of
from fedaq_server.metrics import exposed
from fedaq_server.run import Run
from fedaq_server.transport import open_files, service
from fedaq_server.transport.health import Health
from fedaq_server.transport.tcp_counter import socket_counter

if TYPE_CHECKING:
    from fedaq.privacy.keys import Authority

log = logging.getLogger(__name__)

# For streams to end by themselves.
LAST_WORDS_S = 5.0


async def serve(
    run: Run,
    on_listening: Callable[[int], None],
    on_page: Callable[[str], None] = lambda address: None,
) -> None:
    """Run a federation for clients that connect over gRPC.

    Parameters
    ----------
    run : Run
    on_listening : callable
        Told of the port.
    on_page : callable
        Told of the address of the page to watch, if there is one.

    Raises
    ------
    UserError
        If the server cannot listen where it should, or may not without TLS, or so many clients
        need more open files than it may have.
    FedaqError
        If too few clients connect in time.
    """
    async with page_shown(run) as page:
        with metrics_exposed(run):
            async with listening(run, on_listening) as port:
                if page is not None:
                    on_page(page)
                await run.rounds(socket_counter(port))


@asynccontextmanager
async def listening(
    run: Run, on_listening: Callable[[int], None], port: int | None = None
) -> AsyncIterator[int]:
    """Let clients connect within the block, at this port or that of the settings; yield it.

    Raises
    ------
    UserError
        As `serve`.
    """
    network = run.settings.network
    access = access_of(network)
    if run.settings.privacy.secure_aggregation and network.proves_certificates:
        run.authority = _authority(network)
    room = open_files.room(run.settings)
    server = service.grpc_server(run.admission, access.identify, room)
    health = Health(server)
    port = await service.bind(server, network.host, port or network.port, access.credentials)
    await health.start()
    await server.start()
    log.info(
        "listening on %s", joined(network.host, port),
        extra=event("listening", host=network.host, port=port),
    )  # fmt: skip
    on_listening(port)
    looking = asyncio.create_task(open_files.say_when_full(port, room))
    try:
        yield port
    finally:
        looking.cancel()
        try:
            await health.stop()
        finally:
            await server.stop(LAST_WORDS_S)


def _authority(network: NetworkSettings) -> "Authority":
    from fedaq.privacy.keys import authority_of  # a run without masks does without its package

    assert network.tls is not None
    return authority_of(server_certificates(network.tls))


@asynccontextmanager
async def page_shown(run: Run) -> AsyncIterator[str | None]:
    """Let people watch the run within the block if the settings say so; yield where.

    Raises
    ------
    UserError
        If the page cannot be where it should, or may not without a token.
    """
    if run.settings.network.dashboard_port is None:
        yield None
        return
    from fedaq_server.dashboard.watch import shown  # a server without the page does without it

    async with shown(run) as address:
        yield address


@contextmanager
def metrics_exposed(run: Run) -> Iterator[None]:
    """Let Prometheus read the run's metrics within the block if the settings say so."""
    network = run.settings.network
    if network.metrics_port is None:
        yield
        return
    with exposed(run.metrics, network.metrics_host, network.metrics_port) as port:
        log.info(
            "metrics at http://%s/metrics", joined(network.metrics_host, port),
            extra=event("metrics listening", host=network.metrics_host, port=port),
        )  # fmt: skip
        yield
