"""HTTP proxies: the one that a setting asks for, and those that the environment names in vain."""

import asyncio
import os
from asyncio import StreamReader, StreamWriter
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from fedaq.net.addresses import host_and_port, is_loopback, joined

_NAMES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
# gRPC goes past a proxy to servers that one of them names.
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


class ProxyRefusedError(OSError):
    """The proxy answered, and does not open the way."""


def unused_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the variables that name a proxy; servers are reached without it."""
    spelled = (name for lower in _NAMES for name in (lower, lower.upper()))
    return [name for name in dict.fromkeys(spelled) if environment.get(name)]


def way_hint(address: str, proxy: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return what a proxy may have to do with a server that does not answer.

    Returns
    -------
    str
        To stand at the end of a sentence; empty where it is certain that it has nothing to do
        with it.
    """
    if proxy:
        around = [name for name in _EXCEPTIONS if environment.get(name)]
        past = f", and past it to the servers that {around[0]} names" if around else ""
        return f"; the way goes through network.proxy, {shown(proxy)}{past}"
    unused = unused_variables(environment)
    if not unused or is_loopback(host_and_port(address)[0]):
        return ""
    return (
        f"; {', '.join(unused)} names a proxy, which is not used: if only that reaches the server, "
        "say so with --set network.proxy=http://host:port"
    )


def shown(proxy: str) -> str:
    """Return a proxy without its password."""
    parts = urlsplit(proxy)
    return joined(parts.hostname or "", parts.port or 0)


async def opened(host: str, port: int, proxy: str) -> tuple[StreamReader, StreamWriter]:
    """Open a connection to a server, through the proxy if there is one.

    Raises
    ------
    ProxyRefusedError
        If the proxy does not open the way.
    OSError
        If there is nobody.
    """
    if not proxy:
        return await asyncio.open_connection(host, port)
    parts = urlsplit(proxy)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        await _ask(reader, writer, joined(host, port), parts.username, parts.password)
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _ask(
    reader: StreamReader, writer: StreamWriter, server: str, user: str | None, password: str | None
) -> None:
    lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}"]
    if user is not None:
        secret = f"{unquote(user)}:{unquote(password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {b64encode(secret).decode()}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise ProxyRefusedError("it does not answer as a proxy over HTTP does") from None
    status = head.partition(b"\r\n")[0].split(b" ", 2)
    if not status[0].startswith(b"HTTP/1.") or status[1:2] != [b"200"]:
        words = b" ".join(status[1:])[:80].decode("ascii", "replace")
        raise ProxyRefusedError(f"it does not open the way: {words}")
