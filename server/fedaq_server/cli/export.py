"""``fedaq export``."""

from pathlib import Path
from typing import Annotated

import typer

from fedaq.cli.options import Data


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run that is over.")],
    to: Annotated[
        Path, typer.Option(help="New file: .onnx (for any runtime) or .pt2 (for PyTorch).")
    ],
    data: Data = None,
) -> None:
    """Write the model that a run has trained in a format that other programs read.

    Example: fedaq export runs/first --to model.onnx
    """
    from fedaq.process.terminal import console, foreign
    from fedaq_server.records.exporting import export_model

    export_model(folder, to, data)
    console.print(f"model: {foreign(to)}")
