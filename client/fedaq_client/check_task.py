"""``fedaq check-task``."""

from typing import Annotated

import typer

from fedaq.options import Config, Data, Seed, Set


def check_task(
    task: Annotated[str, typer.Argument(help="A built-in task or package.module:attribute.")],
    data: Data = None,
    partition: Annotated[
        str | None, typer.Option(help="Check with part 2 of 5 of the data: 2/5.")
    ] = None,
    seed: Seed = None,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Train and test a task for one batch, and say what is wrong with it.

    Ends with 0 if it is ready, with 1 if something is wrong with it, with 2 if it cannot be found.

    Example: fedaq check-task sensors.task:task --data data/client-1
    """
    from fedaq.partition import WHOLE, parse_partition
    from fedaq.settings import load_settings
    from fedaq.tasks import load_task
    from fedaq_client.task_check import check, show

    settings = load_settings(
        config=config,
        flags={"task": task, "data": data, "seed": seed},
        assignments=assignments or [],
    )
    part = WHOLE if partition is None else parse_partition(partition)
    result = check(load_task(settings.task, settings.data), settings, part)
    show(result)
    if not result.is_ready:
        raise typer.Exit(1)
