"""``fedaq track``."""

from pathlib import Path
from typing import Annotated

import typer


def track(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs.")],
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="LOGDIR", help="Write event files for TensorBoard here.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Log to this MLflow store or server, for example sqlite:///mlflow.db.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new rounds until the runs are over.")
    ] = False,
) -> None:
    """Bring the rounds of runs to TensorBoard or MLflow; once more adds only what is new.

    Example: fedaq track runs/first --tensorboard tb --follow
    """
    from fedaq.errors import UserError
    from fedaq_server.records.tracking import track_runs

    if tensorboard is None and mlflow is None:
        raise UserError("say where to: --tensorboard LOGDIR or --mlflow URI")
    track_runs(folders, tensorboard, mlflow, follow=follow)
