"""Bytes that crossed the server's sockets, as the kernel counts them.

gRPC shows no byte counts, so the sockets of this process that are connected to its
port are asked for their TCP_INFO (Linux 4.19 or newer).
"""

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_FDS = Path("/proc/self/fd")
_TCP_INFO_BYTES = 256
_BYTES_RECEIVED = 128
_BYTES_SENT = 200
_BYTES_RETRANSMITTED = 208


@dataclass(frozen=True)
class WireBytes:
    """TCP payload bytes in one interval, retransmissions not counted."""

    uplink: int
    downlink: int


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
        self._seen: dict[tuple[object, ...], tuple[int, int]] = {}

    def sample(self) -> WireBytes | None:
        """Return the bytes since the last call."""
        uplink = downlink = 0
        present: dict[tuple[object, ...], tuple[int, int]] = {}
        for peer, received, sent in self._connections():
            before = self._seen.get(peer, (0, 0))
            uplink += received - before[0]
            downlink += sent - before[1]
            present[peer] = (received, sent)
        self._seen = present
        return WireBytes(uplink, downlink)

    def _connections(self) -> list[tuple[tuple[object, ...], int, int]]:
        found = []
        for entry in os.listdir(_FDS):  # noqa: PTH208
            try:
                if not os.readlink(_FDS / entry).startswith("socket:"):  # noqa: PTH115
                    continue
                connection = socket.socket(fileno=os.dup(int(entry)))
            except OSError:
                continue
            with connection:
                counts = self._counts(connection)
            if counts is not None:
                found.append(counts)
        return found

    def _counts(self, connection: socket.socket) -> tuple[tuple[object, ...], int, int] | None:
        try:
            if connection.type != socket.SOCK_STREAM or connection.getsockname()[1] != self._port:
                return None
            peer = connection.getpeername()
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except (OSError, IndexError, TypeError):
            return None
        if len(info) < _BYTES_RETRANSMITTED + 8:
            return None
        (received,) = struct.unpack_from("<Q", info, _BYTES_RECEIVED)
        sent, again = struct.unpack_from("<QQ", info, _BYTES_SENT)
        return peer, received, sent - again


def socket_counter(port: int) -> WireCounter:
    """Return a counter for the connections to `port`, where the system can count."""
    if hasattr(socket, "TCP_INFO") and _FDS.is_dir():
        return SocketCounter(port)
    return NoWire()
