"""The one console that people read."""

from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.markup import escape

from fedaq.errors import printable

console = Console(highlight=False, soft_wrap=True)


def starting() -> AbstractContextManager[object]:
    """Show that something happens, while torch is imported, to whoever looks at a terminal."""
    return console.status("starting") if console.is_terminal else nullcontext()


def foreign(text: object) -> str:
    """Return what came from a peer or a file so that it steers neither console nor terminal."""
    return escape(printable(str(text)))
