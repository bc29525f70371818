"""``fedaq doctor``: looks for what usually goes wrong, on the side that is named."""

from importlib.metadata import entry_points

import typer


def doctor() -> typer.Typer:
    """Return the commands that each side brings."""
    group = typer.Typer()
    group.callback()(_about)
    for entry in sorted(entry_points(group="fedaq.doctor"), key=lambda entry: entry.name):
        group.command(entry.name)(entry.load())
    return group


def _about() -> None:
    """Look for what usually goes wrong, before it does, and say what to do.

    Example: fedaq doctor client --server 192.168.1.10:50051 --tls kitchen
    """
