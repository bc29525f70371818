"""Ports of this machine."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Hold a port within the block as a server would: also just after another one held it.

    Parameters
    ----------
    host : str
    port : int
        0 for any that is free.

    Raises
    ------
    OSError
        If it is taken, or the address is not this machine's.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # On Windows the option would give two processes one port.
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen()
        yield listener
