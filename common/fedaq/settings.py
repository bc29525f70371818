"""Settings of a run: defaults, then a TOML file, the environment, and flags.

Every setting has one name, the same everywhere: ``energy.broadcast`` is
``broadcast = true`` under ``[energy]`` in the file, ``FEDAQ_ENERGY__BROADCAST`` in
the environment and ``--set energy.broadcast=true`` on the command line.
"""

import copy
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from fedaq.energy import (
    FADING_FLOOR,
    MAX_J_PER_BIT,
    RadioCost,
    checked_cost,
    client_distance_m,
    rayleigh_power_gain,
    shannon_rate_bps,
)
from fedaq.errors import UserError
from fedaq.radios import CONSTANT, PRESETS, suggest

ENVIRONMENT_PREFIX = "FEDAQ_"
MAX_DISTANCE_M = 1e6
# A client's token, from where `ps` does not show it.
TOKEN_VARIABLE = "FEDAQ_TOKEN"
NOT_SETTINGS = frozenset({"FEDAQ_TRACEBACK", TOKEN_VARIABLE})
# Sections that may be another's when a run goes on.
NOT_OF_A_RUN = frozenset({"network", "client"})
# Flags that have not the name of their setting.
FLAGS = {"start_from": "--from"}
# Settings in the section `network` that do not change what a run computes.
HOW_REACHED = {
    "host", "port", "tls", "tokens", "token_file", "insecure", "log_tls_failures", "metrics_host",
    "metrics_port", "dashboard_host", "dashboard_port", "dashboard_token_file",
}  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _check_width(bits: int) -> int:
    if not (1 <= bits <= 16 or bits == 32):
        raise ValueError("1 to 16 bits, or 32 for raw float32, are possible")
    return bits


Width = Annotated[int, AfterValidator(_check_width)]


class TrainingSettings(_Section):
    """How each client trains; what is left out is the task's own default."""

    local_epochs: int | None = Field(None, ge=1, le=10_000)
    batch_size: int | None = Field(None, ge=1, le=1_000_000)
    learning_rate: float | None = Field(None, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1)


class FixedSettings(_Section):
    """Scheme ``fixed``: the same bits in every round."""

    uplink_bits: Width = Field(8, description="1 to 16, or 32 for raw float32")
    downlink_bits: Width = Field(8, description="1 to 16, or 32 for raw float32")
    clip: bool = Field(False, description="code what lies within b + 2 standard deviations")


class AdaquantflSettings(_Section):
    """Scheme ``adaquantfl``; `s0` is the best value its authors report."""

    s0: int = Field(2, ge=1, le=2**16 - 1, description="quantization levels of the first round")
    downlink_bits: Width = 32


class DadaquantSettings(_Section):
    """Scheme ``dadaquant``, with the names of its paper (section 3.4)."""

    q_min: int = Field(1, ge=1, le=2**16 - 1, description="quantization level of the first round")
    q_max: int = Field(16, ge=1, le=2**16 - 1, description="where the doubling ends")
    psi: float = Field(0.9, ge=0, lt=1, description="weight of the past in the running loss")
    phi: int | None = Field(
        None, ge=2, description="rounds across which losses are compared [a tenth of the run]"
    )
    downlink_bits: Width = 32

    @model_validator(mode="after")
    def _order(self) -> "DadaquantSettings":
        if self.q_min > self.q_max:
            raise ValueError(f"q_min {self.q_min} is above q_max {self.q_max}")
        return self


class FeddqSettings(_Section):
    """Scheme ``feddq``; the resolution is that of its authors on Fashion-MNIST."""

    resolution: float = Field(0.005, gt=0, description="in the unit of the weights")
    downlink_bits: Width = 32


class FedaqSettings(_Section):
    """Scheme ``fedaq``; the resolutions, steps in the unit of the weights, serve without budget."""

    uplink_resolution: float | None = Field(
        None, gt=0, description="[0.1 with an entropy coder, else 0.03]"
    )
    downlink_resolution: float | None = Field(
        None, gt=0, description="[0.03 where differences go down, else 0.16]"
    )
    clip: bool = Field(True, description="code what lies within b + 2 standard deviations")
    min_bits: int = Field(1, ge=1, le=16, description="per value, at least")
    max_bits: int = Field(16, ge=1, le=16, description="per value, at most")

    @model_validator(mode="after")
    def _order(self) -> "FedaqSettings":
        if self.min_bits > self.max_bits:
            raise ValueError(f"min_bits {self.min_bits} is above max_bits {self.max_bits}")
        return self


class ShannonSettings(_Section):
    """Radio ``shannon``: the rate from power, bandwidth, distance, noise and fading."""

    bandwidth_hz: float = Field(1e6, ge=1, le=1e12)
    uplink_power_w: float = Field(0.1, gt=0, le=1e6, description="radiated by a client")
    downlink_power_w: float = Field(1.0, gt=0, le=1e6, description="radiated by the serving side")
    receive_power_w: float = Field(0.1, ge=0, le=1e6, description="drawn by a client that listens")
    min_distance_m: float = Field(10.0, ge=1, le=MAX_DISTANCE_M)
    max_distance_m: float = Field(100.0, ge=1, le=MAX_DISTANCE_M)
    gain_at_1m: float = Field(1e-3, gt=0, le=1)
    path_loss_exponent: float = Field(3.0, ge=1, le=8)
    noise_w_per_hz: float = Field(4e-21, ge=1e-30, le=1, description="thermal noise at 290 K")
    fading: bool = Field(False, description="Rayleigh, drawn anew for each client and round")

    @model_validator(mode="after")
    def _reachable(self) -> "ShannonSettings":
        if self.min_distance_m > self.max_distance_m:
            raise ValueError(
                f"min_distance_m {self.min_distance_m:g} is above "
                f"max_distance_m {self.max_distance_m:g}"
            )
        try:
            checked_cost(self.cost_at(self.max_distance_m, FADING_FLOOR if self.fading else 1.0))
        except ValueError as error:
            raise ValueError(f"at max_distance_m {self.max_distance_m:g} {error}") from None
        return self

    def radio_cost(self, seed: int, client: str, round_number: int) -> RadioCost:
        """Return the joules per bit of a client in a round."""
        distance_m = client_distance_m(seed, client, self.min_distance_m, self.max_distance_m)
        fading = rayleigh_power_gain(seed, client, round_number) if self.fading else 1.0
        return self.cost_at(distance_m, fading)

    def cost_at(self, distance_m: float, fading_gain: float = 1.0) -> RadioCost:
        """Return the joules per bit at a distance; both directions have the same gain."""
        up_bps = self.rate_bps(self.uplink_power_w, distance_m, fading_gain)
        down_bps = self.rate_bps(self.downlink_power_w, distance_m, fading_gain)
        return RadioCost(
            _per_bit(self.uplink_power_w, up_bps),
            _per_bit(self.downlink_power_w, down_bps),
            _per_bit(self.receive_power_w, down_bps),
        )

    def rate_bps(
        self, transmit_power_w: float, distance_m: float, fading_gain: float = 1.0
    ) -> float:
        """Return Shannon's rate at this power and distance."""
        return shannon_rate_bps(
            bandwidth_hz=self.bandwidth_hz,
            transmit_power_w=transmit_power_w,
            distance_m=distance_m,
            noise_w_per_hz=self.noise_w_per_hz,
            gain_at_1m=self.gain_at_1m,
            path_loss_exponent=self.path_loss_exponent,
            fading_gain=fading_gain,
        )


def _per_bit(power_w: float, rate_bps: float) -> float:
    return power_w / rate_bps if rate_bps > 0 else float("inf")


class LinkSettings(_Section):
    """Joules per bit that replace the figure of the radio."""

    j_per_bit: float | None = Field(
        None, ge=0, lt=MAX_J_PER_BIT, description="[what the radio takes]"
    )


class EnergySettings(_Section):
    """The energy model of clients that do not state their own radio."""

    budget_j: float | None = Field(None, gt=0, description="joules for the whole run")
    radio: str = Field("constant", description="constant, shannon, or a preset (fedaq radio)")
    broadcast: bool = Field(False, description="one transmission reaches every client")
    uplink: LinkSettings = LinkSettings()
    downlink: LinkSettings = LinkSettings()
    receive: LinkSettings = LinkSettings()
    shannon: ShannonSettings = ShannonSettings()

    @field_validator("radio")
    @classmethod
    def _known(cls, radio: str) -> str:
        known = ["constant", "shannon", *PRESETS]
        if radio not in known:
            raise ValueError(suggest(radio, known))
        return radio

    @model_validator(mode="after")
    def _paid(self) -> "EnergySettings":
        shannon = self.shannon.cost_at(self.shannon.max_distance_m)
        checked_cost(self._replaced(shannon if self.radio == "shannon" else self._fixed()))
        return self

    def radio_cost(self, seed: int, client: str, round_number: int) -> RadioCost:
        """Return the joules per bit of a client in a round.

        Parameters
        ----------
        seed : int
            Of the run; with radio ``shannon`` it decides distances and fading.
        client : str
            Its name.
        round_number : int
            From 1.
        """
        if self.radio == "shannon":
            return self._replaced(self.shannon.radio_cost(seed, client, round_number))
        return self._replaced(self._fixed())

    def _fixed(self) -> RadioCost:
        return CONSTANT if self.radio == "constant" else PRESETS[self.radio].cost()

    def _replaced(self, cost: RadioCost) -> RadioCost:
        given = {
            "uplink_j_per_bit": self.uplink.j_per_bit,
            "downlink_j_per_bit": self.downlink.j_per_bit,
            "receive_j_per_bit": self.receive.j_per_bit,
        }
        return replace(cost, **{name: value for name, value in given.items() if value is not None})


class CodingSettings(_Section):
    """What is done to payloads besides the scheme's choice of bits."""

    entropy: bool | None = Field(
        None, description="entropy-code where that is shorter [true for scheme fedaq]"
    )
    downlink: Literal["model", "difference"] | None = Field(
        None, description="send the model, or what clients lack of it [difference for fedaq]"
    )


class PartitionSettings(_Section):
    """How clients that are told ``--partition 2/5`` share the data of one machine."""

    kind: Literal["iid", "shards", "dirichlet"] = Field(
        "iid", description="iid, shards or dirichlet"
    )
    alpha: float = Field(0.5, ge=1e-3, le=1e6, description="dirichlet: smaller is less alike")
    shards_per_client: int = Field(2, ge=1, le=1_000_000, description="shards")


class NetworkSettings(_Section):
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
    dashboard_host: str = "127.0.0.1"
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


class ClientSettings(_Section):
    """Who a client is, and which server it looks for; a run itself has none of this."""

    server: str = Field("127.0.0.1:50051", description="host:port")
    name: str | None = Field(
        None, description="[its certificate's or token's, its part, or the host name]"
    )
    partition: str | None = Field(None, description="part 2 of 5 of the data: 2/5 [all of it]")
    radio: str | None = Field(None, description="its own, a preset [what the server assumes]")
    give_up_after_s: float | None = Field(
        None, gt=0, description="without a server [tries without end]"
    )

    @field_validator("radio")
    @classmethod
    def _known(cls, radio: str | None) -> str | None:
        if radio is not None and radio not in PRESETS:
            raise ValueError(suggest(radio, list(PRESETS)))
        return radio

    @field_validator("server")
    @classmethod
    def _has_a_port(cls, address: str) -> str:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError("it is host:port, for example 192.168.1.10:50051")
        return address


class LimitsSettings(_Section):
    """What the server takes from one client (docs/hostile-clients.md)."""

    examples_factor: float = Field(
        20.0, ge=1, description="weight of a client, in medians of the round's example counts"
    )
    norm_factor: float = Field(
        20.0, ge=0, description="norm of an update, in medians of recent rounds; 0: no rule"
    )
    strikes: int = Field(3, ge=1, description="refusals of its own fault that shut a client out")
    messages_per_s: float = Field(
        20.0, gt=0, le=1e6, description="besides those of a round; a burst of 50 s of them is taken"
    )


class Settings(_Section):
    """Everything that decides what a run does."""

    task: str = Field("digits", description="what is learned")
    data: Path | None = Field(None, description="folder of the task's data, if it needs one")
    clients: int = Field(5, ge=1, le=100_000, description="that the first round waits for")
    min_clients: float = Field(
        1, gt=0, description="a round needs so many clients, below 1: such a share of `clients`"
    )
    clients_per_round: float | None = Field(
        None, gt=0, description="a round is drawn from those there, below 1: a share [all]"
    )
    rounds: int = Field(30, ge=1, le=1_000_000)
    scheme: str = Field("fedaq", description="who chooses the bits")
    seed: int = Field(1, ge=0, lt=2**63, description="makes the run reproducible")
    start_from: Path | None = Field(
        None, description="begin with this model, a safetensors file, not with one of the seed"
    )
    base: Literal["broadcast", "exact"] | None = Field(
        None,
        description="updates are added to the broadcast model, or to the exact one "
        "[exact where differences go down]",
    )
    aggregation: Literal["mean", "median", "trimmed_mean"] = Field(
        "mean", description="of the updates, coordinate by coordinate; only the mean is weighted"
    )
    trim: float = Field(
        0.2, gt=0, lt=0.5, description="trimmed_mean: share of clients left out at each end"
    )
    target_accuracy: float | None = Field(
        None, gt=0, le=1, description="end the run at the first round that reaches it"
    )
    capture: bool = Field(False, description="keep every payload in DIR/payloads")
    training: TrainingSettings = TrainingSettings()
    fixed: FixedSettings = FixedSettings()
    adaquantfl: AdaquantflSettings = AdaquantflSettings()
    dadaquant: DadaquantSettings = DadaquantSettings()
    feddq: FeddqSettings = FeddqSettings()
    fedaq: FedaqSettings = FedaqSettings()
    energy: EnergySettings = EnergySettings()
    coding: CodingSettings = CodingSettings()
    partition: PartitionSettings = PartitionSettings()
    network: NetworkSettings = NetworkSettings()
    client: ClientSettings = ClientSettings()
    limits: LimitsSettings = LimitsSettings()

    @field_validator("min_clients", "clients_per_round")
    @classmethod
    def _is_number_or_share(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("a number of clients is whole, a share is less than 1")
        return value

    @model_validator(mode="after")
    def _are_enough(self) -> "Settings":
        if self.quorum > self.clients:
            raise ValueError(f"min_clients is {self.quorum}, but there are {self.clients} clients")
        if self.sample is not None and self.sample < self.quorum:
            raise ValueError(
                f"clients_per_round is {self.sample}, but min_clients is {self.quorum}"
            )
        return self

    @property
    def quorum(self) -> int:
        """Number of clients without whose updates a round does not count."""
        return _number_of(self.min_clients, self.clients)

    @property
    def sample(self) -> int | None:
        """Number of clients that are drawn for a round; None for all that are there."""
        chosen = self.clients_per_round
        return None if chosen is None else _number_of(chosen, self.clients)

    @property
    def entropy(self) -> bool:
        """Whether payloads are entropy-coded where that is shorter."""
        chosen = self.coding.entropy
        return self._beyond_the_paper if chosen is None else chosen

    @property
    def differences(self) -> bool:
        """Whether clients are sent what their model lacks, and not the model."""
        chosen = self.coding.downlink
        return self._beyond_the_paper if chosen is None else chosen == "difference"

    @property
    def added_to(self) -> Literal["broadcast", "exact"]:
        """Which model updates are added to."""
        return self.base or ("exact" if self.differences else "broadcast")

    @property
    def _beyond_the_paper(self) -> bool:
        """The other schemes are compared as their authors describe them."""
        return self.scheme == "fedaq"


def _number_of(number_or_share: float, clients: int) -> int:
    return int(number_or_share if number_or_share >= 1 else ceil(number_or_share * clients))


Layer = dict[str, Any]


def flag_of(key: str) -> str:
    """Return the flag that sets what this dotted name stands for."""
    return FLAGS.get(key) or "--" + key.rpartition(".")[2].removesuffix("_s").replace("_", "-")


def load_settings(
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    begun: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge every source of settings, the later over the earlier, and validate.

    Parameters
    ----------
    config : Path, optional
        A TOML file.
    environment : mapping, optional
        Defaults to the process's; variables that begin with ``FEDAQ_`` are settings.
    flags : mapping, optional
        Dotted names to values; None is left out.
    assignments : iterable of str
        ``key=value`` as given to ``--set``.
    begun : mapping, optional
        The settings with which a run has begun: they come first, and only those of the sections
        ``network`` and ``client`` may change.

    Raises
    ------
    UserError
        If the file cannot be read or a setting is unknown, impossible or another than the run
        has begun with; the message names the source.
    """
    merged: Layer = {}
    sources: dict[str, str] = {}
    if begun is not None:
        # What an older version had no setting for, it did as the default says.
        merged = Settings().model_dump(mode="json")
        _merge(merged, dict(begun), {}, "")
        begun = copy.deepcopy(merged)
    if config is not None:
        _merge(merged, _read_toml(config), sources, str(config))
    variables = os.environ if environment is None else environment
    for name, text in sorted(variables.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _merge(merged, _nested(key, _value(text)), sources, f"environment {name}")
    for key, value in (flags or {}).items():
        if value is not None:
            _merge(merged, _nested(key, value), sources, flag_of(key))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {assignment}: write it as key=value")
        _merge(merged, _nested(key.strip(), _value(text.strip())), sources, f"--set {assignment}")
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise UserError(_explain(error, sources)) from None
    if begun is not None:
        _refuse_changes(settings.model_dump(mode="json"), begun, sources)
    return settings


def _refuse_changes(
    now: Mapping[str, Any], begun: Mapping[str, Any], sources: Mapping[str, str], at: str = ""
) -> None:
    for key, value in now.items():
        dotted = f"{at}{key}"
        if dotted in NOT_OF_A_RUN or value == begun[key]:
            continue
        if isinstance(value, dict):
            _refuse_changes(value, begun[key], sources, f"{dotted}.")
        raise UserError(
            f"{sources[dotted]}: the run has begun with {dotted} = {begun[key]}, and goes on "
            "with it; leave it out, or begin another run"
        )


def flattened(settings: Mapping[str, Any], at: str = "") -> Layer:
    """Return settings in sections as one mapping from dotted names."""
    flat: Layer = {}
    for name, value in settings.items():
        inner = value if isinstance(value, dict) else None
        flat.update({at + name: value} if inner is None else flattened(inner, f"{at}{name}."))
    return flat


def _read_toml(path: Path) -> Layer:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def _value(text: str) -> Any:
    """Read a value as TOML would; what is no TOML value is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(key: str, value: Any) -> Layer:
    *sections, name = key.split(".")
    layer = {name: value}
    for section in reversed(sections):
        layer = {section: layer}
    return layer


def _merge(into: Layer, layer: Layer, sources: dict[str, str], source: str, at: str = "") -> None:
    for key, value in layer.items():
        dotted = f"{at}{key}"
        if isinstance(value, dict):
            below = into.get(key)
            if not isinstance(below, dict):
                below = into[key] = {}
            _merge(below, value, sources, source, f"{dotted}.")
        else:
            into[key] = value
        sources[dotted] = source


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    dotted = ".".join(path)
    # What is wrong with a whole section may come from any source that set a part of it.
    touched = (sources[key] for key in sources if f"{key}.".startswith(f"{dotted}."))
    source = " and ".join(dict.fromkeys(touched)) or "settings"
    if problem["type"] == "extra_forbidden":
        known = _names(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{source}: {dotted} is not a setting; {hint}"
    if problem["type"] == "model_type":
        return f"{source}: {dotted} is a section; set the names in it: {', '.join(_names(path))}"
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    shown = "" if isinstance(problem["input"], dict | BaseModel) else f" (got {problem['input']!r})"
    return f"{source}: {dotted}: {reason}{shown}" if dotted else f"{source}: {reason}{shown}"


def _names(path: list[str]) -> list[str]:
    section: type[BaseModel] = Settings
    for part in path:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type)
        section = annotation
    return list(section.model_fields)
