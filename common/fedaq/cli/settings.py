"""``fedaq settings``."""

from typing import Annotated

import typer

from fedaq.cli.options import Config, Set


def settings(
    word: Annotated[
        str | None, typer.Argument(help="Only those with this word in their name or meaning.")
    ] = None,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """List every setting, its value and its meaning; what is not the default is bold.

    One name everywhere: energy.budget_j is budget_j under [energy] in a TOML file (--config),
    FEDAQ_ENERGY__BUDGET_J in the environment, and --set energy.budget_j=2 on the command line.
    The later of these wins. A "-" stands for a default that the meaning tells in brackets.

    Example: fedaq settings energy
    """
    from fedaq.cli.settings_table import show

    show(word, config=config, assignments=assignments or [])
