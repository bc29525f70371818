"""How a server is reached, and who it is that calls."""

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from fedaq.errors import UserError
from fedaq.net.addresses import is_loopback
from fedaq.net.credentials import server_certificates
from fedaq.settings import NetworkSettings
from fedaq_server.identity.caller import Identify, JoinRefusedError, nobody_in_particular
from fedaq_server.identity.fingerprints import fingerprint, read_fingerprints
from fedaq_server.identity.tokens import Tokens, read_tokens

log = logging.getLogger(__name__)

STRANGER = "not authenticated"


@dataclass(frozen=True)
class Access:
    """How a server is reached, and who it is that calls.

    Attributes
    ----------
    credentials : grpc.ServerCredentials, optional
        None without TLS.
    identify : callable
        Returns the one name under which a call may join, None if any will do.
    """

    credentials: grpc.ServerCredentials | None
    identify: Identify


def access_of(network: NetworkSettings) -> Access:
    """Return what the settings say of it.

    Raises
    ------
    UserError
        If certificates or tokens cannot be used, or the server would listen without TLS
        where others can reach it.
    """
    _check_address(network)
    tokens = None if network.tokens is None else read_tokens(network.tokens)
    by_token = None if tokens is None else _by_token(tokens)
    if network.tls is None:
        return Access(None, by_token or nobody_in_particular)
    own = server_certificates(network.tls)
    credentials = grpc.ssl_server_credentials(
        [(own.key, own.certificate)],
        root_certificates=own.ca if tokens is None else None,
        require_client_auth=tokens is None,
    )
    revoked = read_fingerprints(network.tls / "revoked")
    return Access(credentials, by_token or _by_certificate(revoked))


def _check_address(network: NetworkSettings) -> None:
    if network.tls is not None or is_loopback(network.host):
        return
    if not network.insecure:
        raise UserError(
            f"--host {network.host} is open to other machines: give the server certificates "
            "with --tls FOLDER (fedaq certs makes them), or do without encryption with --insecure"
        )
    known = "tokens can be overheard" if network.tokens else "anybody may join"
    log.warning("no TLS on %s: everything can be read and changed, %s", network.host, known)


def _by_certificate(revoked: Mapping[str, str]) -> Identify:
    """Let a client be whom its certificate names; gRPC has verified the certificate."""

    def identify(context: Any) -> str:
        facts = context.auth_context()
        names = facts.get("x509_common_name", ())
        pem = facts.get("x509_pem_cert", ())
        if len(names) != 1 or len(pem) != 1:
            raise _stranger(f"its certificate has {len(names)} common names; it needs one")
        name = str(names[0].decode("utf-8", errors="replace"))
        if fingerprint(ssl.PEM_cert_to_DER_cert(pem[0].decode())) in revoked:
            raise _stranger(f"this certificate of {name} is revoked")
        return name

    return identify


def _by_token(tokens: Tokens) -> Identify:
    """Let a client be whom its token is for."""

    def identify(context: Any) -> str:
        shown = [
            value for key, value in context.invocation_metadata() or () if key == "authorization"
        ]
        if len(shown) != 1:
            raise _stranger("it showed no token" if not shown else "it showed several tokens")
        name = tokens.name_of(str(shown[0]))
        if name is None:
            raise _stranger("its token is none of those in --tokens")
        return name

    return identify


def _stranger(sentence: str) -> JoinRefusedError:
    return JoinRefusedError(grpc.StatusCode.UNAUTHENTICATED, sentence, told=STRANGER)
