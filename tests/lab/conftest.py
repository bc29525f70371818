"""What the tests of the laboratory share: `fedaq` in an empty folder."""

from system.conftest import commands

__all__ = ["commands"]
