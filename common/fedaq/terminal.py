"""The one console that people read."""

from rich.console import Console
from rich.markup import escape

from fedaq.errors import printable

console = Console(highlight=False, soft_wrap=True)


def foreign(text: object) -> str:
    """Return what came from a peer or a file so that it steers neither console nor terminal."""
    return escape(printable(str(text)))
