"""``fedaq dashboard``."""

from pathlib import Path
from typing import Annotated

import typer


def dashboard(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, for example runs.")],
    port: Annotated[int, typer.Option(help="Port of the page; 0: any free one")] = 8080,
    host: Annotated[str, typer.Option(help="Address of the page")] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the secret that the page asks for.")
    ] = None,
) -> None:
    """Show past runs in a browser, and lay them over one another.

    A run that goes on is shown by its own server: fedaq server --dashboard-port 8080

    Example: fedaq dashboard runs
    """
    import time

    from fedaq.errors import UserError
    from fedaq.process.terminal import console
    from fedaq_server.dashboard.serving import access_of, served

    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give one that holds runs, for example runs")
    with served(access_of(host, token_file), port, folder, None) as page:
        console.print(f"{page.address} shows the runs in {folder}; Ctrl+C ends it", markup=False)
        while True:
            time.sleep(3600)
