"""Why TLS does not come about: gRPC says only that a socket was closed.

A connection of Python's own, with the same credentials, fails for the same reason and names it.
"""

import asyncio
import re
import ssl
from errno import ECONNREFUSED
from pathlib import Path

from fedaq.net.addresses import host_and_port
from fedaq.net.credentials import (
    EXPIRED,
    NOT_YET_VALID,
    Certificates,
    client_context,
    doubted_clock,
)
from fedaq_client.transport.access import Access
from fedaq_client.transport.proxies import opened

PATIENCE_S = 5.0
AGAIN_S = 0.5
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH

_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")


async def tls_problem(address: str, access: Access) -> str | None:
    """Return why a server and a client do not meet, whatever is between them.

    Returns
    -------
    str, optional
        None where TLS is not the reason.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            if access.certificates is None:
                return await _without(address, access.proxy)
            return await _with(address, access.certificates, access.proxy)
    except (TimeoutError, OSError, ValueError):
        return None


async def nobody_listens(address: str, access: Access) -> bool:
    """Tell whether the server's machine is there and refuses the connection."""
    host, port = host_and_port(address)
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await opened(host, int(port), access.proxy)
    except (TimeoutError, OSError, ValueError) as error:
        # Of several addresses of a name, asyncio joins the texts.
        found = re.findall(r"\[Errno (\d+)\]", str(error))
        return isinstance(error, ConnectionRefusedError) or {*found} == {str(ECONNREFUSED)}
    writer.close()
    return False


async def _without(address: str, proxy: str) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        await _is_heard(address, context, proxy)
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return None
    return f"the server at {address} speaks TLS: give this client certificates with --tls FOLDER"


async def _with(address: str, certificates: Certificates, proxy: str) -> str | None:
    context = client_context(certificates.folder, with_certificate=bool(certificates.certificate))
    try:
        # A server that is just stopping hangs up as well, but not twice.
        if await _is_heard(address, context, proxy):
            return None
        await asyncio.sleep(AGAIN_S)
        if await _is_heard(address, context, proxy):
            return None
    except ssl.SSLCertVerificationError as error:
        return _distrusted(error, address, certificates.folder)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if any(words in reason for words in _NOT_TLS):
            return f"the server at {address} does not speak TLS; was it started with --tls?"
        if "ALERT" not in reason:
            return None
    return _turned_away(address, certificates)


def _distrusted(error: ssl.SSLCertVerificationError, address: str, folder: Path) -> str:
    if error.verify_code in _OTHER_NAME:
        return (
            f"the server at {address} has a certificate for other names: reach it by one of "
            f"them, or add this one with fedaq certs DIR --host {host_and_port(address)[0]}"
        )
    if error.verify_code == EXPIRED:
        return f"the certificate of the server at {address} has expired"
    if error.verify_code == NOT_YET_VALID:
        return f"the certificate of the server at {address} is not valid yet; {doubted_clock()}"
    return (
        f"the certificate of the server at {address} is not signed by {folder}/ca.crt: "
        f"{error.verify_message}"
    )


def _turned_away(address: str, certificates: Certificates) -> str:
    folder = certificates.folder
    if not certificates.certificate:
        return f"the server at {address} wants a certificate, and {folder} has no client.crt"
    return (
        f"the server at {address} does not accept {folder}/client.crt: its operator can see "
        "why; is it of the same authority?"
    )


async def _is_heard(address: str, context: ssl.SSLContext, proxy: str) -> bool:
    """Shake hands; tell whether the server then speaks, and does not hang up.

    Under TLS 1.3 it sees the client's certificate when the client is done already.
    """
    host, port = host_and_port(address)
    context.set_alpn_protocols(["h2"])
    reader, writer = await opened(host, int(port), proxy)
    try:
        await writer.start_tls(context, server_hostname=host)
        return bool(await reader.read(1))
    finally:
        writer.close()
