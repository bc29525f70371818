"""``fedaq server``."""

from pathlib import Path
from typing import Annotated

import typer

from fedaq.cli.options import (
    Aggregation,
    Budget,
    Clients,
    Config,
    DashboardPort,
    Data,
    Device,
    DeviceBudget,
    From,
    JsonLogs,
    Out,
    Quiet,
    Rounds,
    Scheme,
    Seed,
    Set,
    Tariff,
    Task,
    Threads,
    settings_of,
)

Host = Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on [50051]")]
Tls = Annotated[
    Path | None,
    typer.Option(
        help="Folder with server.crt, server.key and ca.crt, which fedaq certs makes: "
        "encrypts, and lets in whoever has a client's certificate."
    ),
]
Tokens = Annotated[
    Path | None,
    typer.Option(
        help="File that fedaq tokens makes: lets in whoever has a client's token, in "
        "place of certificates."
    ),
]


def server(
    task: Task = None,
    data: Data = None,
    clients: Clients = None,
    rounds: Rounds = None,
    scheme: Scheme = None,
    aggregation: Aggregation = None,
    budget: Budget = None,
    device_budget: DeviceBudget = None,
    tariff: Tariff = None,
    seed: Seed = None,
    start_from: From = None,
    out: Out = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this folder after its last committed round; "
            "begin one there if there is none."
        ),
    ] = None,
    host: Host = None,
    port: Port = None,
    tls: Tls = None,
    tokens: Tokens = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Listen beyond this machine without encryption."),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics for Prometheus [none]")
    ] = None,
    dashboard_port: DashboardPort = None,
    device: Device = None,
    threads: Threads = None,
    config: Config = None,
    json_logs: JsonLogs = False,
    quiet: Quiet = False,
    assignments: Set = None,
) -> None:
    """Run a federation for clients that connect from anywhere.

    Example: fedaq server --task digits --clients 3 --out runs/first

    After it was stopped: fedaq server --resume runs/first
    """
    from fedaq.process import logs, terminal
    from fedaq.process.memory import share_one_arena

    logs.begin(as_json=json_logs, quiet=quiet)
    share_one_arena()
    with terminal.starting():
        from fedaq_server.cli.server_process import run_server

    run_server(
        config=config,
        out=out,
        resume=resume,
        flags=settings_of(
            task=task,
            data=data,
            clients=clients,
            rounds=rounds,
            scheme=scheme,
            aggregation=aggregation,
            budget=budget,
            device_budget=device_budget,
            tariff=tariff,
            seed=seed,
            start_from=start_from,
            host=host,
            port=port,
            metrics_port=metrics_port,
            dashboard_port=dashboard_port,
            tls=tls,
            tokens=tokens,
            insecure=insecure,
            device=device,
            threads=threads,
        ),
        assignments=assignments or [],
    )
