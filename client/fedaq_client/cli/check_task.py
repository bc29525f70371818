"""``fedaq check-task``."""

from typing import Annotated

import typer

from fedaq.cli.options import Data, Seed, Set, settings_of
from fedaq_client.cli.client import Base, Config, Part


def check_task(
    task: Annotated[str, typer.Argument(help="A built-in task or package.module:attribute.")],
    data: Data = None,
    partition: Part = None,
    seed: Seed = None,
    start_from: Base = None,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Train and test a task for one batch, and say what is wrong with it.

    Ends with 0 if it is ready, with 1 if something is wrong with it, with 2 if it cannot be found.

    Example: fedaq check-task sensors.task:task --data data/client-1
    """
    from fedaq.settings import load_settings
    from fedaq.tasks import load_task
    from fedaq_client.cli.task_check import check
    from fedaq_client.cli.task_report import show
    from fedaq_client.naming import part_of

    settings = load_settings(
        config=config,
        flags=settings_of(
            task=task, data=data, partition=partition, seed=seed, start_from=start_from
        ),
        assignments=assignments or [],
    )
    task_there = load_task(settings.task, settings.data)
    result = check(task_there, settings, part_of(settings.client))
    show(result)
    if not result.is_ready:
        raise typer.Exit(1)
