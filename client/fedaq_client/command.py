"""``fedaq client``."""

from pathlib import Path
from typing import Annotated

import typer

from fedaq.options import Data, JsonLogs, Quiet, Set, Task


def client(
    server: Annotated[
        str, typer.Option(help="Address of the server, host:port.")
    ] = "127.0.0.1:50051",
    name: Annotated[
        str | None,
        typer.Option(
            help="Identity of this client [its certificate's or token's, its part, or host name]"
        ),
    ] = None,
    task: Task = None,
    data: Data = None,
    partition: Annotated[
        str | None,
        typer.Option(help="Use part 2 of 5 of the data: 2/5. Default: all of it is this client's."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides who holds which part of the data [1]")
    ] = None,
    radio: Annotated[
        str | None,
        typer.Option(
            help="State this client's own radio, a preset of fedaq radio, for example "
            "lte-m. Default: what the server's settings say."
        ),
    ] = None,
    give_up_after: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="End after so long without a server. Default: try without end."
        ),
    ] = None,
    tls: Annotated[
        Path | None,
        typer.Option(
            help="Folder with ca.crt, by which the server is known, and client.crt and "
            "client.key, if it wants them; fedaq certs makes it."
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with this client's token [environment FEDAQ_TOKEN]")
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Speak to another machine without encryption."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    json_logs: JsonLogs = False,
    quiet: Quiet = False,
    assignments: Set = None,
) -> None:
    """Train on this machine's data for a federation that a server runs.

    Example: fedaq client --server 192.168.1.10:50051 --tls kitchen --task digits --partition 1/3
    """
    from fedaq import logs
    from fedaq_client.main import run_client

    logs.begin(as_json=json_logs, quiet=quiet)
    run_client(
        server=server,
        name=name,
        partition=partition,
        radio=radio,
        give_up_after_s=give_up_after,
        config=config,
        flags={
            "task": task,
            "data": data,
            "seed": seed,
            "network.tls": tls,
            "network.token_file": token_file,
            "network.insecure": insecure,
        },
        assignments=assignments or [],
    )
