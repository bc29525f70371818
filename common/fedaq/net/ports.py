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
    family, kind, _, _, place = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind) as listener:
        # On Windows the option would give two processes one port.
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()
        yield listener


def why_not(host: str, port: int) -> str | None:
    """Return why nobody could listen there; None if somebody could."""
    try:
        with bound(host, port):
            return None
    except OSError as error:
        return error.strerror or str(error)
