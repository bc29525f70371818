"""The tests in a browser share one folder of commands."""

from system.conftest import lasting_commands

__all__ = ["lasting_commands"]
