"""Bytes that crossed the server's sockets, as the kernel counts them.

gRPC shows no byte counts, so the sockets of this process that are connected to its
port are asked for their TCP_INFO (Linux 4.19 or newer). Other systems do not tell: there a
sample is None, and of every peer 0 bytes are known.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

_FDS = Path("/proc/self/fd")
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_TCP_INFO_BYTES = 256
_BYTES_RECEIVED = 128
_BYTES_SENT = 200
_BYTES_RETRANSMITTED = 208

# Host and port.
Address = tuple[str, int]


@dataclass(frozen=True)
class WireBytes:
    """TCP payload bytes in one interval, retransmissions not counted."""

    uplink: int
    downlink: int


@dataclass(frozen=True)
class _Connection:
    """A TCP connection of this process: its local port, its peer, and the bytes over it."""

    port: int
    peer: Address
    received: int
    sent: int


class WireCounter(Protocol):
    """Counts the bytes between the server and all clients."""

    def sample(self) -> WireBytes | None:
        """Return the bytes since the last call; None where they cannot be measured."""


class NoWire:
    """The counter of a federation without sockets, or of a system without TCP_INFO."""

    def sample(self) -> WireBytes | None:
        """Return None."""
        return None


class SocketCounter:
    """Counts the bytes of every connection to one local port of this process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._seen: dict[Address, tuple[int, int]] = {}

    def sample(self) -> WireBytes | None:
        """Return the bytes since the last call."""
        uplink = downlink = 0
        present: dict[Address, tuple[int, int]] = {}
        try:
            connections = list(_connections())
        except OSError:  # no descriptor is left to look with: they count next time
            return WireBytes(0, 0)
        for connection in connections:
            if connection.port != self._port:
                continue
            before = self._seen.get(connection.peer, (0, 0))
            uplink += connection.received - before[0]
            downlink += connection.sent - before[1]
            present[connection.peer] = (connection.received, connection.sent)
        self._seen = present
        return WireBytes(uplink, downlink)


def received_bytes(peer: str) -> int:
    """Return what has come over the connection to a peer, as gRPC names it; 0 if unknown.

    It may be a second old.
    """
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    if not port.isdecimal():
        return 0
    # The kernel gives a link-local address without its scope.
    address = host.strip("[]").partition("%")[0], int(port)
    try:
        return _received_by_peer(int(time.monotonic())).get(address, 0)
    except OSError:  # no descriptor is left to look with
        return 0


@lru_cache(maxsize=1)
def _received_by_peer(second: int) -> dict[Address, int]:
    """Look at all connections, once a second for all who ask."""
    return {connection.peer: connection.received for connection in _connections()}


def _can_count() -> bool:
    return _TCP_INFO is not None and _FDS.is_dir()


def _connections() -> Iterator[_Connection]:
    if not _can_count():
        return
    for entry in os.listdir(_FDS):  # noqa: PTH208
        try:
            if not os.readlink(_FDS / entry).startswith("socket:"):  # noqa: PTH115
                continue
            duplicate = os.dup(int(entry))
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise
            continue
        try:
            connection = socket.socket(fileno=duplicate)
        except OSError:  # it is no socket any more
            os.close(duplicate)
            continue
        with connection:
            found = _counts(connection)
        if found is not None:
            yield found


def _counts(connection: socket.socket) -> _Connection | None:
    try:
        if connection.type != socket.SOCK_STREAM or _TCP_INFO is None:
            return None
        port = connection.getsockname()[1]
        host, peer_port = connection.getpeername()[:2]
        info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_BYTES)
    except (OSError, IndexError, TypeError, ValueError):
        return None
    if len(info) < _BYTES_RETRANSMITTED + 8:
        return None
    (received,) = struct.unpack_from("<Q", info, _BYTES_RECEIVED)
    sent, again = struct.unpack_from("<QQ", info, _BYTES_SENT)
    # gRPC names an IPv4 peer of an IPv6 socket as an IPv4 one.
    return _Connection(port, (host.removeprefix("::ffff:"), peer_port), received, sent - again)


def socket_counter(port: int) -> WireCounter:
    """Return a counter for the connections to `port`, where the system can count."""
    if _can_count():
        return SocketCounter(port)
    return NoWire()
