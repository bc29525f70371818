"""The byte counter against plain sockets, whose every byte the test sends itself."""

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from fedaq_server.transport import tcp_counter
from fedaq_server.transport.tcp_counter import (
    NoWire,
    SocketCounter,
    WireBytes,
    received_bytes,
    socket_counter,
)

PATIENCE_S = 10.0

pytestmark = pytest.mark.skipif(
    not (hasattr(socket, "TCP_INFO") and Path("/proc/self/fd").is_dir()),
    reason="bytes are counted on Linux only",
)


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as server:
        try:
            server.bind((request.param, 0))
        except OSError:
            pytest.skip(f"this machine has no {request.param}")
        server.listen()
        yield server


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


class Pair:
    """A connection: the client's end and the server's."""

    def __init__(self, stack: ExitStack, listener: socket.socket) -> None:
        self.client = stack.enter_context(socket.socket(listener.family))
        self.client.connect(listener.getsockname()[:2])
        self.server = stack.enter_context(closing(listener.accept()[0]))

    def up(self, count: int) -> None:
        carry(self.client, self.server, count)

    def down(self, count: int) -> None:
        carry(self.server, self.client, count)


def carry(sender: socket.socket, receiver: socket.socket, count: int) -> None:
    """Send bytes and wait until all of them have been received."""
    receiver.settimeout(PATIENCE_S)
    while count:
        piece = min(count, 32_768)
        sender.sendall(bytes(piece))
        count -= piece
        while piece:
            piece -= len(receiver.recv(piece))


def test_every_byte_counts_in_its_direction_and_interval(listener: socket.socket) -> None:
    counter = SocketCounter(port_of(listener))
    with ExitStack() as stack:
        assert counter.sample() == WireBytes(0, 0)
        one, two = Pair(stack, listener), Pair(stack, listener)
        one.up(3)
        two.up(1_000_000)
        one.down(500)
        assert counter.sample() == WireBytes(uplink=1_000_003, downlink=500)
        assert counter.sample() == WireBytes(0, 0)
        two.down(70_000)
        three = Pair(stack, listener)
        three.up(1)
        assert counter.sample() == WireBytes(uplink=1, downlink=70_000)


def test_bytes_that_wait_to_be_read_have_crossed_the_wire(listener: socket.socket) -> None:
    counter = SocketCounter(port_of(listener))
    with ExitStack() as stack:
        pair = Pair(stack, listener)
        pair.client.sendall(bytes(100))
        end = time.monotonic() + PATIENCE_S
        uplink = 0
        while uplink < 100 and time.monotonic() < end:
            sample = counter.sample()
            assert sample is not None
            uplink += sample.uplink
        assert uplink == 100


def test_a_closed_connection_takes_nothing_from_the_others(listener: socket.socket) -> None:
    counter = SocketCounter(port_of(listener))
    with ExitStack() as stack:
        stays = Pair(stack, listener)
        with ExitStack() as brief:
            goes = Pair(brief, listener)
            goes.up(1000)
            stays.up(10)
            assert counter.sample() == WireBytes(1010, 0)
        stays.up(5)
        assert counter.sample() == WireBytes(5, 0)


def test_other_ports_and_other_sockets_do_not_count(listener: socket.socket) -> None:
    counter = SocketCounter(port_of(listener))
    with ExitStack() as stack:
        other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        Pair(stack, other).up(12345)
        ends = stack.enter_context(closing(socket.socketpair()[0]))
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", 0))
        assert ends.fileno() > 0
        assert counter.sample() == WireBytes(0, 0)


def test_counting_leaves_the_sockets_and_their_number_as_they_are(
    listener: socket.socket,
) -> None:
    counter = SocketCounter(port_of(listener))
    with ExitStack() as stack:
        pair = Pair(stack, listener)
        before = sorted(entry.name for entry in Path("/proc/self/fd").iterdir())
        for _ in range(50):
            counter.sample()
        assert sorted(entry.name for entry in Path("/proc/self/fd").iterdir()) == before
        pair.up(1)
        pair.down(1)
        assert counter.sample() == WireBytes(1, 1)


@pytest.mark.parametrize(
    ("family", "listen_at", "connect_to", "peer"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", "ipv4:127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "::1", "ipv6:%5B::1%5D:{}"),
        (socket.AF_INET6, "::1", "::1", "ipv6:[::1]:{}"),
        (socket.AF_INET6, "::1", "::1", "ipv6:%5B::1%25lo%5D:{}"),
        (socket.AF_INET6, "::", "127.0.0.1", "ipv4:127.0.0.1:{}"),
    ],
)
def test_what_came_over_one_connection_is_found_by_its_peer(
    family: socket.AddressFamily, listen_at: str, connect_to: str, peer: str
) -> None:
    both = listen_at == "::"
    with (
        socket.create_server((listen_at, 0), family=family, dualstack_ipv6=both) as listener,
        socket.create_connection((connect_to, port_of(listener))) as client,
        socket.create_connection((connect_to, port_of(listener))) as other,
        closing(listener.accept()[0]) as here,
        closing(listener.accept()[0]),
    ):
        client.sendall(bytes(1234))
        other.sendall(bytes(99))
        assert len(here.recv(1234, socket.MSG_WAITALL)) == 1234
        tcp_counter._received_by_peer.cache_clear()
        assert received_bytes(peer.format(client.getsockname()[1])) == 1234


@pytest.mark.parametrize("peer", ["", "unix:", "unix:/a/b", "ipv4:127.0.0.1:1", "ipv4:x", "::::"])
def test_of_a_peer_that_is_none_nothing_is_known(peer: str) -> None:
    assert received_bytes(peer) == 0


def test_where_the_kernel_does_not_count_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert isinstance(socket_counter(1), SocketCounter)
    monkeypatch.setattr(tcp_counter, "_FDS", tmp_path / "missing")
    counter = socket_counter(1)
    assert isinstance(counter, NoWire)
    assert counter.sample() is None


@pytest.mark.parametrize("call", ["dup", "listdir"])
def test_bytes_that_cannot_be_asked_for_count_the_next_time(
    call: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is left to look with."""

    def none_left(*arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    counter = SocketCounter(port_of(listener))
    with ExitStack() as stack:
        pair = Pair(stack, listener)
        pair.up(100)
        assert counter.sample() == WireBytes(100, 0)
        pair.up(10)
        with monkeypatch.context() as full:
            full.setattr(f"os.{call}", none_left)
            assert counter.sample() == WireBytes(0, 0)
        pair.down(1)
        assert counter.sample() == WireBytes(10, 1)
