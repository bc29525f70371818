"""``fedaq report``."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of runs and of comparisons.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and its pictures.")] = Path(
        "report"
    ),
) -> None:
    """Show runs on one page that needs nothing else: curves, energy, bytes, settings.

    Example: fedaq report runs/first runs/second --out report
    """
    from fedaq.process.terminal import console, foreign
    from fedaq_lab.report_page import write_report

    page, pictures = write_report(folders, out)
    console.print(f"report: {foreign(page)}, and {len(pictures)} pictures beside it")
