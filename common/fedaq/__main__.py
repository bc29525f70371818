"""``python -m fedaq``."""

from fedaq.cli import main

main()
