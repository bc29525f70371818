"""``fedaq certs``."""

from pathlib import Path
from typing import Annotated

import typer


def certs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the certificates are, or will be.")
    ],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or IP address under which clients reach the server; repeatable."),
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(help="A client that gets a certificate; repeatable.")
    ] = None,
    revoke: Annotated[
        list[str] | None,
        typer.Option(help="A client whose certificates so far are refused; repeatable."),
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="Days for which they are valid.")
    ] = 365,
) -> None:
    """Make a private certificate authority, and certificates for a server and its clients.

    Call it again to add hosts and clients, or to renew theirs; the authority stays.

    Example: fedaq certs certs --host fl.example.org --client kitchen --client garden
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fedaq.process.terminal import console
    from fedaq_server.identity.certificates import issue

    made = issue(folder, hosts=host or [], clients=client or [], revoked=revoke or [], days=days)
    table = Table("folder", "for", "flag there", "valid until", box=SIMPLE_HEAD)
    for one in made:
        table.add_row(str(one.folder), one.host, "--tls FOLDER", f"{one.until:%Y-%m-%d}")
    if made:
        console.print(table)
    console.print(f"{folder}/ca.key makes further certificates: keep it here, give it to nobody")
    if revoke:
        console.print(f"{folder}/server/revoked goes to the server; it is read at its start")
