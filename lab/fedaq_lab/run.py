"""``fedaq run``: a server process and client processes on this machine."""

from typing import Annotated

import typer

from fedaq.options import Clients, Config, Data, Out, Rounds, Scheme, Seed, Set, Task


def run(
    task: Task = None,
    data: Data = None,
    clients: Clients = None,
    rounds: Rounds = None,
    scheme: Scheme = None,
    seed: Seed = None,
    out: Out = None,
    port: Annotated[int | None, typer.Option(help="Port to use [any free one]")] = None,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Train a whole federation on this machine: one server, several clients, real gRPC.

    Example: fedaq run --task digits --clients 5 --rounds 30 --scheme fedaq --out runs/first
    """
    from fedaq_lab.processes import run_processes

    run_processes(
        config=config,
        out=out,
        port=port,
        flags={
            "task": task,
            "data": data,
            "clients": clients,
            "rounds": rounds,
            "scheme": scheme,
            "seed": seed,
        },
        assignments=assignments or [],
    )
