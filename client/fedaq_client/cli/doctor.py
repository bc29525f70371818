"""``fedaq doctor client``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedaq.cli.options import Data, Set, Task, settings_of
from fedaq_client.cli.client import Config, Insecure, Name, Part, Server, Tls, TokenFile

if TYPE_CHECKING:
    from fedaq.cli.checkup import Finding


def client(
    server: Server = None,
    name: Name = None,
    task: Task = None,
    data: Data = None,
    partition: Part = None,
    tls: Tls = None,
    token_file: TokenFile = None,
    insecure: Insecure = None,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Check what a client needs: give it the options that fedaq client is to have.

    Looks at versions, clock, cores, threads, compiled code, certificates or token, the way to
    the server, the server itself, the task and its data, and memory. Exit code 1 if something
    is in the way.

    Example: fedaq doctor client --server 192.168.1.10:50051 --tls kitchen --task digits
    """
    from fedaq.cli.checkup import of_side, show
    from fedaq.settings import load_settings

    settings = load_settings(
        config=config,
        flags=settings_of(
            server=server,
            name=name,
            partition=partition,
            task=task,
            data=data,
            tls=tls,
            token_file=token_file,
            insecure=insecure,
        ),
        assignments=assignments or [],
    )

    def findings() -> "Iterator[Finding]":
        from fedaq_client.cli.checkup import client_findings

        return client_findings(settings)

    show(of_side(findings))
