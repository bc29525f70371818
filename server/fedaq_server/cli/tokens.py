"""``fedaq tokens``."""

from pathlib import Path
from typing import Annotated

import typer


def tokens(
    file: Annotated[Path, typer.Argument(help="The server's file of tokens.")],
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of clients.")],
) -> None:
    """Make a token for each client, for a server that is started with --tokens FILE.

    The server's file holds no secret, only hashes. A client that is named again gets
    another token; a line taken out of FILE leaves its client out.

    Example: fedaq tokens access/tokens kitchen garden
    """
    from fedaq.process.terminal import console
    from fedaq_server.identity.tokens import make_tokens

    made = make_tokens(file, names)
    console.print(f"server: --tokens {file}")
    for name, path in zip(names, made, strict=True):
        console.print(f"client {name}: --token-file {path}", markup=False)
