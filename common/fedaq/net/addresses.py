"""Addresses as people write them, and as FedAQ goes on with them."""

import ipaddress
import re
from urllib.parse import urlsplit

_EXPECTED = "it is host:port, for example 192.168.1.10:50051"
_NAME = re.compile(r"\w[\w.-]*")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def server_address(text: str) -> str:
    """Return where a server is as ``host:port``; an IPv6 address stands in brackets.

    Raises
    ------
    ValueError
        If it is not clear where that is; the message says what is expected.
    """
    written = text.strip()
    scheme = _SCHEME.match(written)
    if scheme is not None:
        written = written[scheme.end() :].removesuffix("/")
        if scheme[1].lower() == "https":
            raise ValueError(f"--tls FOLDER chooses TLS, not https://; {_EXPECTED}")
        if scheme[1].lower() not in ("http", "grpc"):
            raise ValueError(_EXPECTED)
    host, _, port = written.rpartition(":")
    alone = _without_brackets(written)
    if _is_ipv6(alone):
        parts = (host, port) if _is_ipv6(host) and port.isdecimal() else (alone, "50051")
        raise ValueError(f"an IPv6 address stands in brackets before its port: {joined(*parts)}")
    bare = _without_brackets(host)
    if not _is_host(bare) or not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(_EXPECTED)
    return joined(bare, port)


def listening_host(text: str) -> str:
    """Return an address to listen on, without brackets.

    Raises
    ------
    ValueError
        If it is none; the message says what is expected.
    """
    host = _without_brackets(text.strip())
    if not _is_host(host):
        raise ValueError(
            "it is an address or a name of this machine, without a port: 0.0.0.0 for all of them"
        )
    return host


def proxy_address(text: str) -> str:
    """Return a proxy as it was written.

    Raises
    ------
    ValueError
        If it is not one over HTTP, or has no port; the message does not repeat a password.
    """
    try:
        parts = urlsplit(text)
        right = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:
        right = False
    if not right or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("it is http://host:port, for example http://192.168.1.1:3128")
    return text


def joined(host: str, port: int | str) -> str:
    """Return ``host:port`` as gRPC takes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_and_port(address: str) -> tuple[str, str]:
    """Take ``host:port`` apart; an IPv6 address stands in brackets."""
    host, _, port = address.rpartition(":")
    return _without_brackets(host), port


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine can be reached at this address."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(_without_brackets(host))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _without_brackets(host: str) -> str:
    inner = host[1:-1]
    return inner if host == f"[{inner}]" and _is_ipv6(inner) else host


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    return _is_ipv6(text) or _NAME.fullmatch(text) is not None
