"""``fedaq run``: a server process and client processes on this machine."""

from enum import StrEnum
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


class Engine(StrEnum):
    """How the two sides of a federation meet."""

    PROCESSES = "processes"
    LOCAL = "local"
    RAY = "ray"


RayAddress = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster that --engine ray uses [one is started here]"),
]
RayGpus = Annotated[
    float,
    typer.Option(
        help="GPUs that the training of a client takes, with --engine ray and --device cuda; "
        "with 0.25, four share one"
    ),
]


def run(
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
    port: Annotated[int | None, typer.Option(help="Port to use [any free one]")] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="processes over gRPC, everything in one process (local), or that with the "
            "training on a Ray cluster (ray)"
        ),
    ] = Engine.PROCESSES,
    ray_address: RayAddress = None,
    ray_gpus: RayGpus = 1.0,
    dashboard_port: DashboardPort = None,
    device: Device = None,
    threads: Threads = None,
    config: Config = None,
    quiet: Quiet = False,
    assignments: Set = None,
) -> None:
    """Train a whole federation on this machine: one server, several clients, real gRPC.

    Example: fedaq run --task digits --clients 5 --rounds 30 --scheme fedaq --out runs/first
    """
    from fedaq.process import logs, terminal

    flags = settings_of(
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
        dashboard_port=dashboard_port,
        start_from=start_from,
        device=device,
        threads=threads,
    )
    logs.begin(quiet=quiet)
    if engine is not Engine.PROCESSES:
        with terminal.starting():
            from fedaq_lab.local import run_local
            from fedaq_lab.pools import pool_of

        with pool_of(engine.value, ray_address, ray_gpus) as pool:
            run_local(config=config, out=out, flags=flags, assignments=assignments or [], pool=pool)
        return
    with terminal.starting():
        from fedaq_lab.processes import run_processes

    run_processes(
        config=config,
        out=out,
        port=port,
        flags=flags,
        assignments=assignments or [],
        quiet=quiet,
    )
