"""``fedaq inspect``: a captured payload or a run folder, in words."""

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    path: Annotated[Path, typer.Argument(help="A .payload file, a run folder or a run.json.")],
) -> None:
    """Say in words what a captured payload or a run folder holds.

    Example: fedaq run --set capture=true --out runs/x; fedaq inspect runs/x/payloads/*1.payload
    """
    from fedaq.cli.inspection import show

    show(path)
