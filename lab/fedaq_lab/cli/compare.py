"""``fedaq compare``: several schemes, several seeds, one target."""

from pathlib import Path
from typing import Annotated

import typer

from fedaq.cli.options import (
    Budget,
    Clients,
    Config,
    Data,
    DeviceBudget,
    Quiet,
    Rounds,
    Set,
    Tariff,
    Task,
)
from fedaq_lab.cli.run import Engine, RayAddress, RayGpus


def compare(
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]",
            help="A line of the comparison, for example fixed:fixed.uplink_bits=2; repeat it "
            "[fp32, fixed, feddq, adaquantfl, dadaquant, fedaq]",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "1,2,3",
    target: Annotated[
        float, typer.Option(help="What the test must reach, in the task's metric.")
    ] = 0.95,
    until_target: Annotated[
        bool, typer.Option("--until-target", help="End each run as soon as it is reached.")
    ] = False,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="UP/DOWN",
            help="Add scheme fixed at all widths, for example 1-8/1-8; the best one is named.",
        ),
    ] = None,
    task: Task = None,
    data: Data = None,
    clients: Clients = None,
    rounds: Rounds = None,
    budget: Budget = None,
    device_budget: DeviceBudget = None,
    tariff: Tariff = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the comparison; a stopped one is resumed.")
    ] = Path("runs/compare"),
    engine: Annotated[
        Engine,
        typer.Option(
            help="processes over gRPC, each run in one process (local), or that with the training "
            "of all on one Ray cluster (ray)"
        ),
    ] = Engine.LOCAL,
    ray_address: RayAddress = None,
    ray_gpus: RayGpus = 1.0,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    config: Config = None,
    quiet: Quiet = False,
    assignments: Set = None,
) -> None:
    """Compare schemes: same start, same data, energy to one target.

    Example: fedaq compare --scheme fixed --scheme fedaq --seeds 1,2,3 --target 0.95 --rounds 30
    """
    from fedaq.process import logs, terminal

    logs.begin(quiet=quiet)
    with terminal.starting():
        from fedaq_lab.comparison import run_comparison
        from fedaq_lab.pools import flags_of

    flags = {
        "task": task, "data": data, "clients": clients, "rounds": rounds, "config": config,
        "budget": budget, "device-budget": device_budget, "tariff": tariff,
    }  # fmt: skip
    with flags_of(engine.value, ray_address, ray_gpus) as place:
        run_comparison(
            schemes=scheme,
            grid=grid,
            seeds=seeds,
            target=target,
            until_target=until_target,
            options=[
                *(f"--{name}={value}" for name, value in flags.items() if value is not None),
                f"--engine={engine.value}",
                *(f"--set={assignment}" for assignment in assignments or []),
            ],
            folder=out,
            jobs=jobs,
            place=place,
        )
