"""What the trials outside the test suite find, and how they end."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Check:
    """What must hold, and whether it did."""

    what: str
    found: str
    holds: bool


def conclude(checks: Iterable[Check], title: str = "") -> NoReturn:
    """Print a table of what was found, and end with code 1 if anything does not hold."""
    found = list(checks)
    table = Table("what", "found", "", title=title or None)
    for check in found:
        table.add_row(check.what, check.found, "holds" if check.holds else "[bold]BROKEN")
    Console().print(table)
    sys.exit(0 if all(check.holds for check in found) else 1)
