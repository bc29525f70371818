"""The command ``fedaq``: finds every side's commands, and holds the options and checks they share.

Each package has a room like this one, with a file per command. `main` is the program's entry.
"""

from fedaq.cli.app import main as main
