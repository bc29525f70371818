"""Why TLS does not come about: gRPC says only that a socket was closed.

A connection of Python's own, with the same credentials, fails for the same reason and names it.
"""

import asyncio
import ssl

from fedaq.credentials import Certificates, client_context
from fedaq_client.access import host_and_port

PATIENCE_S = 5.0
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_EXPIRED = 10

# By the alert that the server sends.
_ALERTS = (
    ("CERTIFICATE_REQUIRED", "it wants a certificate, and {folder} has no client.crt"),
    ("UNKNOWN_CA", "it does not trust the authority of {folder}/client.crt"),
    ("CERTIFICATE_EXPIRED", "it finds {folder}/client.crt expired"),
    ("CERTIFICATE", "it does not accept {folder}/client.crt"),
    ("HANDSHAKE_FAILURE", "it does not accept what {folder} holds"),
)
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")


async def tls_problem(address: str, certificates: Certificates | None) -> str | None:
    """Return why a server and a client with these certificates do not meet.

    Returns
    -------
    str, optional
        None where TLS is not the reason.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            if certificates is None:
                return await _without(address)
            return await _with(address, certificates)
    except (TimeoutError, OSError, ValueError):
        return None


async def _without(address: str) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        await _meet(address, context)
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return None
    return f"the server at {address} speaks TLS: give this client certificates with --tls FOLDER"


async def _with(address: str, certificates: Certificates) -> str | None:
    folder = certificates.folder
    context = client_context(folder, with_certificate=bool(certificates.certificate))
    host = host_and_port(address)[0]
    try:
        await _meet(address, context)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OTHER_NAME:
            return (
                f"the server at {address} has a certificate for other names: reach it by one of "
                f"them, or add this one with fedaq certs DIR --host {host}"
            )
        if error.verify_code == _EXPIRED:
            return f"the certificate of the server at {address} has expired"
        return (
            f"the certificate of the server at {address} is not signed by {folder}/ca.crt: "
            f"{error.verify_message}"
        )
    except ssl.SSLError as error:
        reason = error.reason or ""
        if any(words in reason for words in _NOT_TLS):
            return f"the server at {address} does not speak TLS; was it started with --tls?"
        for words, meaning in _ALERTS:
            if words in reason:
                return f"the server at {address} refused TLS: {meaning.format(folder=folder)}"
    return None


async def _meet(address: str, context: ssl.SSLContext) -> None:
    """Shake hands and wait for the server's first byte, before which it may refuse."""
    host, port = host_and_port(address)
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=context, server_hostname=host
    )
    try:
        await reader.read(1)
    finally:
        writer.close()
