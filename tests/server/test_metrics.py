"""Who asks for metrics: answered, and no burden to the server."""

import socket
import urllib.request

import pytest

from fedaq.errors import UserError
from fedaq_server import metrics
from fedaq_server.metrics import Metrics, exposed


def asked(host: str, port: int) -> str:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_metrics_are_told(host: str, url: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with exposed(Metrics(None), host, 0) as port:
        assert "fedaq_rounds_total 0.0" in asked(url, port)


def test_connections_that_ask_for_nothing_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_ASKING", 3)
    monkeypatch.setattr(metrics._Asked, "timeout", 0.3)
    with exposed(Metrics(None), "127.0.0.1", 0) as port:
        idle = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(3)]
        with socket.create_connection(("127.0.0.1", port), timeout=30) as one_more:
            assert one_more.recv(1) == b""
        for each in idle:
            with each:
                assert each.recv(1) == b""
        assert "fedaq_rounds_total 0.0" in asked("127.0.0.1", port)


def test_an_address_that_is_not_this_machines() -> None:
    with (
        pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1:0"),
        exposed(Metrics(None), "192.0.2.1", 0),
    ):
        pass
