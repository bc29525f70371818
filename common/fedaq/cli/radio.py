"""``fedaq radio``: what a bit costs, for each kind of radio."""

from typing import Annotated

import typer

from fedaq.cli.options import Config, Set


def radio(
    distance: Annotated[
        list[float] | None,
        typer.Option(
            metavar="METRES",
            help="A distance for radio shannon; may be repeated [its bounds in the settings]",
        ),
    ] = None,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Show the joules per megabit of every radio preset, and of radio shannon by distance.

    Example: fedaq radio --distance 10 --distance 500 --set energy.shannon.bandwidth_hz=20e6
    """
    from fedaq.cli.radio_tables import show

    show(distance or [], config=config, assignments=assignments or [])
