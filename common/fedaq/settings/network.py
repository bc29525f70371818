"""How the two sides meet, and what the server takes from a client."""

from pathlib import Path

from pydantic import Field, field_validator

from fedaq.energy.budgets import parse_amounts
from fedaq.energy.radios import known_radio
from fedaq.net.addresses import listening_host, proxy_address, server_address
from fedaq.net.client_names import RULE, is_name
from fedaq.settings.section import Section

# Settings in the section `network` that do not change what a run computes.
HOW_REACHED = {
    "host", "port", "tls", "tokens", "token_file", "insecure", "log_tls_failures", "metrics_host",
    "metrics_port", "dashboard_host", "dashboard_port", "dashboard_token_file", "proxy",
}  # fmt: skip


class NetworkSettings(Section):
    """Where the server listens and how long it is patient."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(50051, ge=0, le=65535, description="0: any free port")
    tls: Path | None = Field(None, description="folder of certificates: TLS")
    tokens: Path | None = Field(
        None, description="server: file of tokens, in place of the clients' certificates"
    )
    token_file: Path | None = Field(None, description="client: file with its token")
    insecure: bool = Field(False, description="do without TLS beyond this machine")
    log_tls_failures: bool = Field(
        False, description="log why TLS handshakes fail, read from gRPC's words on standard error"
    )
    metrics_host: str = Field("127.0.0.1", description="address of /metrics")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="of /metrics for Prometheus; 0: any free port [off]"
    )
    dashboard_host: str = Field("127.0.0.1", description="address of the page to watch")
    dashboard_port: int | None = Field(
        None, ge=0, le=65535, description="of the page to watch; 0: any free port [off]"
    )
    dashboard_token_file: Path | None = Field(
        None, description="file with the secret that the page asks for"
    )
    chunk_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        le=2 * 1024 * 1024,
        description="the largest; with more than 5 clients less, to keep the server's memory",
    )
    heartbeat_interval_s: float = Field(
        5.0, gt=0, description="a client is dropped after three that are missing"
    )
    join_timeout_s: float = Field(300.0, gt=0, description="waiting for the clients")
    round_deadline_s: float = Field(600.0, gt=0, description="a round goes on without the late")
    return_wait_s: float = Field(
        10.0, ge=0, description="a round waits so long for a client that lost its connection"
    )
    proxy: str | None = Field(
        None,
        description="client: HTTP proxy on the way to a server that is not this machine, "
        "http://host:port [none]",
    )

    @property
    def proves_certificates(self) -> bool:
        """Whether each client of this server has a certificate, and no token instead."""
        return self.tls is not None and self.tokens is None

    @field_validator("host", "metrics_host", "dashboard_host")
    @classmethod
    def _is_listened_on(cls, host: str) -> str:
        return listening_host(host)

    @field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, proxy: str | None) -> str | None:
        return None if proxy is None else proxy_address(proxy)


class ClientSettings(Section):
    """Who a client is, and which server it looks for; a run itself has none of this."""

    server: str = Field(
        "127.0.0.1:50051", description="host:port; of several, A,B, the next where one is gone"
    )
    tls: Path | None = Field(
        None, description="folder of its certificates, a relay's towards its server [network.tls]"
    )
    name: str | None = Field(
        None, description="[its certificate's or token's, its part, or the host name]"
    )
    partition: str | None = Field(None, description="part 2 of 5 of the data: 2/5 [all of it]")
    radio: str | None = Field(None, description="its own, a preset [what the server assumes]")
    device_budget: str | None = Field(
        None, description="what this device may spend in the run: 2J, 20MB or 3EUR, or several"
    )
    tariff: float | None = Field(
        None, ge=0, le=1e9, description="money for a megabyte of payload [what the server assumes]"
    )
    training_w: float | None = Field(
        None, ge=0, le=1e6, description="power that it draws while it trains"
    )
    give_up_after_s: float | None = Field(
        None, gt=0, description="without a server [tries without end]"
    )
    state: Path | None = Field(
        None,
        description="folder that keeps what it holds, and its training, over a restart [none]",
    )

    @field_validator("radio")
    @classmethod
    def _known(cls, radio: str | None) -> str | None:
        return None if radio is None else known_radio(radio)

    @field_validator("device_budget", mode="before")
    @classmethod
    def _is_a_budget(cls, value: object) -> str | None:
        if value is not None:
            parse_amounts(value)
        return None if value is None else str(value)

    @field_validator("server")
    @classmethod
    def _are_reached(cls, addresses: str) -> str:
        return ",".join(map(server_address, addresses.split(",")))

    @field_validator("name")
    @classmethod
    def _can_be_called(cls, name: str | None) -> str | None:
        if name is not None and not is_name(name):
            raise ValueError(RULE)
        return name

    @property
    def servers(self) -> list[str]:
        """Where they are, in the order in which they are looked for."""
        return self.server.split(",")


class LimitsSettings(Section):
    """What the server takes from one client (docs/explanation/hostile-clients.md)."""

    examples_factor: float = Field(
        20.0, ge=1, description="weight of a client, in medians of the round's example counts"
    )
    norm_factor: float = Field(
        20.0,
        ge=0,
        description="norm of an update, in medians of recent rounds; 0: no rule, "
        "nor with secure aggregation",
    )
    strikes: int = Field(3, ge=1, description="refusals of its own fault that shut a client out")
    messages_per_s: float = Field(
        20.0, gt=0, le=1e6, description="besides those of a round; a burst of 50 s of them is taken"
    )
