"""The files that a server may have open, and how many connections they leave room for.

A connection is a file, too. Were strangers to take the last ones, a round could not be committed.
So gRPC is told how many connections to take, and turns away what comes beyond.
"""

import asyncio
import logging
import socket
import sys
from collections import Counter
from contextlib import suppress
from importlib import import_module
from typing import Any

import psutil

from fedaq.errors import UserError
from fedaq.process.logs import event
from fedaq.settings import Settings

log = logging.getLogger(__name__)

# What a server has open besides clients: libraries, the ledger, differences, metrics, new
# connections that gRPC turns away.
OWN_FILES = 100
# Of the page, at the most: so many, and such a share of the limit.
PAGE_CONNECTIONS, PAGE_SHARE = 400, 1 / 8
# What is asked for, where the system's own limit is higher or none: more than a server needs, and
# the most that macOS grants.
WANTED = (2**20, 10_240)
LOOK_S = 5.0


def limit() -> int | None:
    """Return how many files this process may have open; None where nothing says."""
    resource = _resource()
    soft = -1 if resource is None else int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return None if soft < 0 else soft


def raise_limit() -> None:
    """Let this process have as many open files as it may: the usual 1,024 are a soft limit."""
    resource, now = _resource(), limit()
    if resource is None or now is None:
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for wanted in WANTED:
        more = wanted if hard < 0 else min(wanted, hard)
        if more > now:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
                return


def page_connections(files: int | None) -> int:
    """Return how many connections the page may have under a limit of open files."""
    return PAGE_CONNECTIONS if files is None else min(PAGE_CONNECTIONS, int(PAGE_SHARE * files))


def most_clients(settings: Settings, files: int) -> int:
    """Return how many clients fit into a limit of open files, at each address of the server."""
    page = settings.network.dashboard_port is not None
    left = max(files - OWN_FILES - (page_connections(files) if page else 0), 0)
    # Each has a connection, and in a round a file in which its update waits.
    drawn = settings.sample
    most = max(left // 2, 0 if drawn is None else left - drawn)
    return most // _addresses(settings.network.host)


def room(settings: Settings) -> int | None:
    """Return how many clients may connect to each address, None for any number.

    Raises
    ------
    UserError
        If a run waits for more.
    """
    files = limit()
    if files is None:
        return None
    most = most_clients(settings, files)
    if most < settings.clients:
        raise UserError(
            f"the limit of {files} open files leaves room for {most} clients, and the run waits "
            f"for {settings.clients}: raise it (ulimit -n, LimitNOFILE= of a unit, --ulimit "
            "nofile= of a container)"
        )
    return most


def _addresses(host: str) -> int:
    """Return at how many addresses gRPC listens for a host; it counts connections at each."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # it is refused later, with a reason
        return 1
    return len({address for *_, address in found})


async def say_when_full(port: int, most: int | None) -> None:
    """Log once that a port has as many connections at an address as are taken there."""
    if most is None or sys.platform == "win32":
        return
    process = psutil.Process()
    while True:
        await asyncio.sleep(LOOK_S)
        # The first look takes microseconds, the second milliseconds.
        if process.num_fds() < most or await asyncio.to_thread(_count, process, port) < most:
            continue
        log.warning(
            "%d connections are open, all that the limit of open files leaves room for; no further "
            "client gets in until one of them closes (ulimit -n)",
            most, extra=event("connections full", connections=most),
        )  # fmt: skip
        return


def _count(process: psutil.Process, port: int) -> int:
    """Return the connections to a port, at the address that has most of them."""
    open_now = (each for each in process.net_connections("tcp") if each.raddr)
    at_each = Counter(each.laddr.ip for each in open_now if each.laddr.port == port)
    return max(at_each.values(), default=0)


def _resource() -> Any:
    try:
        return import_module("resource")
    except ImportError:  # Windows
        return None
