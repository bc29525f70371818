"""How a client knows its server, and what it shows of itself."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fedaq.errors import UserError
from fedaq.net.addresses import host_and_port, is_loopback
from fedaq.net.credentials import Certificates, client_certificates
from fedaq.settings import TOKEN_VARIABLE, ClientSettings, NetworkSettings


@dataclass(frozen=True)
class Access:
    """How a client knows its server, and what it shows of itself.

    Attributes
    ----------
    certificates : Certificates, optional
        None without TLS.
    token : str
        Empty without one.
    proxy : str
        HTTP proxy on the way to the server; empty where it is reached directly.
    """

    certificates: Certificates | None = None
    token: str = field(default="", repr=False)
    proxy: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """Whom the token or the certificate names; empty without either."""
        if self.token:
            return unquote(self.token.rpartition(":")[0])
        return self.certificates.name if self.certificates else ""


PLAIN = Access()


def access_of(
    network: NetworkSettings, address: str, environment: Mapping[str, str] = os.environ
) -> Access:
    """Return what the settings and the environment say of it.

    Raises
    ------
    UserError
        If certificates or the token cannot be used, or the server is another machine and
        would be spoken to without TLS.
    """
    token = _token(network.token_file, environment)
    host = host_and_port(address)[0]
    proxy = proxy_of(network, address)
    if network.tls is not None:
        return Access(client_certificates(network.tls), token, proxy)
    if not network.insecure and not is_loopback(host):
        raise UserError(
            f"--server {address} is another machine: give this client certificates with "
            "--tls FOLDER (fedaq certs makes them), or do without encryption with --insecure"
        )
    return Access(None, token, proxy)


def servers_of(network: NetworkSettings, own: ClientSettings) -> list[tuple[str, Access]]:
    """Return where a client's servers are, and what the settings say of the way to each.

    Raises
    ------
    UserError
        As `access_of`.
    """
    if own.tls is not None:
        network = network.model_copy(update={"tls": own.tls})
    return [(address, access_of(network, address)) for address in own.servers]


def proxy_of(network: NetworkSettings, address: str) -> str:
    """Return the HTTP proxy on the way to a server; empty where there is none."""
    to_this_machine = is_loopback(host_and_port(address)[0])
    return "" if network.proxy is None or to_this_machine else network.proxy


def _token(file: Path | None, environment: Mapping[str, str]) -> str:
    if file is None:
        text, source = environment.get(TOKEN_VARIABLE, ""), f"environment {TOKEN_VARIABLE}"
    else:
        source = f"--token-file {file}"
        try:
            text = file.read_text(encoding="ascii")
        except OSError as error:
            raise UserError(f"{source}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            text = "\n"
    token = text.strip()
    # What is there is not shown: it may be a secret all the same.
    right = token.isascii() and token.isprintable() and " " not in token
    name, _, secret = token.rpartition(":")
    if (text and not (right and name and secret)) or (file is not None and not text):
        raise UserError(f"{source}: not a token; fedaq tokens makes one")
    return token
