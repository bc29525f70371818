"""Ways to write an address: taken where it is clear, else told what is expected."""

import pytest

from fedaq.net import addresses

SERVERS = {
    "192.168.1.10:50051": "192.168.1.10:50051",
    " kitchen-pi.local:50051\n": "kitchen-pi.local:50051",
    "fedaq_server:1": "fedaq_server:1",
    "müller.local:65535": "müller.local:65535",
    "[::1]:50051": "[::1]:50051",
    "[fe80::1%eth0]:50051": "[fe80::1%eth0]:50051",
    "fe80::1:50051": "[fe80::1]:50051",  # five digits are no part of an IPv6 address
    "2001:db8:0:0:0:0:0:1:5005": "[2001:db8:0:0:0:0:0:1]:5005",  # nor is a ninth group
    "http://10.0.0.2:50051": "10.0.0.2:50051",
    "HTTP://10.0.0.2:50051/": "10.0.0.2:50051",
    "grpc://server:50051": "server:50051",
}
REFUSED_SERVERS = {
    "": "it is host:port, for example",
    "kitchen": "it is host:port, for example",
    ":50051": "it is host:port",
    "kitchen:": "it is host:port",
    "kitchen:0": "it is host:port",
    "kitchen:65536": "it is host:port",
    "kitchen:http": "it is host:port",
    "kitchen:٣": "it is host:port",
    "two words:50051": "it is host:port",
    "me@kitchen:50051": "it is host:port",
    "kitchen:50051/path": "it is host:port",
    "unix:/run/fedaq": "it is host:port",
    "dns:///kitchen:50051": "it is host:port",
    "[kitchen]:50051": "it is host:port",
    "[::1:50051": "it is host:port",
    "fe80::1%eth0:50051": "an IPv6 address stands in brackets before its port: [fe80::1%eth0]:",
    "::1": "an IPv6 address stands in brackets before its port: [::1]:50051",
    "[::1]": "an IPv6 address stands in brackets before its port: [::1]:50051",
    "fe80::1:5005": "an IPv6 address stands in brackets before its port: [fe80::1]:5005",
    "https://kitchen:50051": "--tls FOLDER chooses TLS, not https://; it is host:port",
}
HOSTS = {
    "0.0.0.0": "0.0.0.0", "::": "::", "[::1]": "::1", " localhost ": "localhost",
    "fe80::1%eth0": "fe80::1%eth0",
}  # fmt: skip


@pytest.mark.parametrize("text", SERVERS)
def test_where_a_server_is(text: str) -> None:
    found = addresses.server_address(text)
    assert found == SERVERS[text]
    assert addresses.server_address(found) == found
    assert addresses.joined(*addresses.host_and_port(found)) == found


@pytest.mark.parametrize("text", REFUSED_SERVERS)
def test_where_no_server_can_be(text: str) -> None:
    with pytest.raises(ValueError) as error:
        addresses.server_address(text)
    assert str(error.value).startswith(REFUSED_SERVERS[text])


@pytest.mark.parametrize("text", HOSTS)
def test_what_is_listened_on(text: str) -> None:
    assert addresses.listening_host(text) == HOSTS[text]


@pytest.mark.parametrize(
    "text", ["", "*", "0.0.0.0:50051", "[::1]:1", "http://0.0.0.0", "a b", "/"]
)
def test_what_cannot_be_listened_on(text: str) -> None:
    with pytest.raises(ValueError, match="an address or a name of this machine, without a port"):
        addresses.listening_host(text)


@pytest.mark.parametrize("text", ["http://proxy:3128", "http://me:secret@10.0.0.1:3128/"])
def test_a_proxy(text: str) -> None:
    assert addresses.proxy_address(text) == text


@pytest.mark.parametrize(
    "text", ["", "proxy:3128", "http://proxy", "https://proxy:1", "socks5://proxy:1",
             "http://proxy:x", "http://proxy:3128/path"],
)  # fmt: skip
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(ValueError, match="it is http://host:port, for example"):
        addresses.proxy_address(text)


@pytest.mark.parametrize("host", ["LocalHost", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_this_machine(host: str) -> None:
    assert addresses.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "localhost.example", ""])
def test_another_machine(host: str) -> None:
    assert not addresses.is_loopback(host)
