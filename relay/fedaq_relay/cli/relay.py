"""``fedaq relay``."""

from pathlib import Path
from typing import Annotated

import typer

from fedaq.cli import completion
from fedaq.cli.options import (
    Config,
    DashboardPort,
    Data,
    DeviceBudget,
    From,
    JsonLogs,
    Quiet,
    Scheme,
    Seed,
    Set,
    Task,
    settings_of,
)

Server = Annotated[
    str | None,
    typer.Option(help="Address of its own server, host:port [127.0.0.1:50051]; A,B of several."),
]
Name = Annotated[
    str | None, typer.Option(help="Its identity there [its certificate's or token's, or host name]")
]
Clients = Annotated[int | None, typer.Option(help="Clients that its first round waits for [5]")]
Radio = Annotated[
    str | None,
    typer.Option(
        help="Of its link to the server, a preset of fedaq radio; that of its clients' links is "
        "--set energy.radio=... Default: what the server's settings say.",
        autocompletion=completion.radio,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder that it goes on from if it is started again [runs/relay-NAME]"),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on [50051]")]
Tls = Annotated[
    Path | None,
    typer.Option(help="Folder of a server's certificates, towards its clients, as of fedaq server"),
]
ServerTls = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a client's certificates, towards its server [that of --tls, if it has them]"
    ),
]
Tokens = Annotated[
    Path | None, typer.Option(help="File of its clients' tokens, in place of certificates.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File with its own token for the server [environment FEDAQ_TOKEN]"),
]
Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Do without encryption beyond this machine, both ways."),
]
GiveUp = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="End after so long without a server. Default: try without end."
    ),
]
MetricsPort = Annotated[int | None, typer.Option(help="Port of /metrics for Prometheus [none]")]


def relay(
    server: Server = None,
    name: Name = None,
    task: Task = None,
    data: Data = None,
    clients: Clients = None,
    scheme: Scheme = None,
    device_budget: DeviceBudget = None,
    seed: Seed = None,
    start_from: From = None,
    radio: Radio = None,
    out: Out = None,
    host: Host = None,
    port: Port = None,
    tls: Tls = None,
    server_tls: ServerTls = None,
    tokens: Tokens = None,
    token_file: TokenFile = None,
    insecure: Insecure = None,
    give_up_after: GiveUp = None,
    metrics_port: MetricsPort = None,
    dashboard_port: DashboardPort = None,
    config: Config = None,
    json_logs: JsonLogs = False,
    quiet: Quiet = False,
    assignments: Set = None,
) -> None:
    """Be the server of clients nearby, and one client to a server far away.

    Example: fedaq relay --server 192.0.2.1:50051 --port 50052 --clients 3 --task digits
    """
    from fedaq.process import logs, terminal
    from fedaq.process.memory import share_one_arena

    logs.begin(as_json=json_logs, quiet=quiet)
    share_one_arena()
    with terminal.starting():
        from fedaq_relay.cli.relay_process import run_relay

    run_relay(
        config=config,
        out=out,
        flags={"client.tls": server_tls}
        | settings_of(
            server=server,
            name=name,
            radio=radio,
            give_up_after_s=give_up_after,
            task=task,
            data=data,
            clients=clients,
            scheme=scheme,
            device_budget=device_budget,
            seed=seed,
            start_from=start_from,
            host=host,
            port=port,
            tls=tls,
            tokens=tokens,
            token_file=token_file,
            insecure=insecure,
            metrics_port=metrics_port,
            dashboard_port=dashboard_port,
        ),
        assignments=assignments or [],
    )
