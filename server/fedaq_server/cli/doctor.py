"""``fedaq doctor server``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedaq.cli.options import Clients, Config, Data, Out, Set, Task, settings_of
from fedaq_server.cli.server import Host, Port, Tls, Tokens

if TYPE_CHECKING:
    from fedaq.cli.checkup import Finding


def server(
    task: Task = None,
    data: Data = None,
    clients: Clients = None,
    out: Out = None,
    host: Host = None,
    port: Port = None,
    tls: Tls = None,
    tokens: Tokens = None,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Check what a server needs: give it the options that fedaq server is to have.

    Looks at versions, clock, cores, threads, compiled code, certificates or tokens, the port,
    open files for so many clients, the task and its test data, memory and disk. Exit code 1
    if something is in the way.

    Example: fedaq doctor server --task digits --clients 20 --host 0.0.0.0 --tls certs/server
    """
    from fedaq.cli.checkup import of_side, show
    from fedaq.settings import load_settings

    settings = load_settings(
        config=config,
        flags=settings_of(
            task=task,
            data=data,
            clients=clients,
            host=host,
            port=port,
            tls=tls,
            tokens=tokens,
        ),
        assignments=assignments or [],
    )

    def findings() -> "Iterator[Finding]":
        from fedaq_server.cli.checkup import server_findings

        return server_findings(settings, out)

    show(of_side(findings))
