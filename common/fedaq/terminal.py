"""The one console that people read."""

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
