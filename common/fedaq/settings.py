"""Settings of a run: defaults, then a TOML file, the environment, and flags.

Every setting has one name, the same everywhere: ``energy.broadcast`` is
``broadcast = true`` under ``[energy]`` in the file, ``FEDAQ_ENERGY__BROADCAST`` in
the environment and ``--set energy.broadcast=true`` on the command line.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedaq.energy import RadioCost, shannon_rate_bps
from fedaq.errors import UserError

ENVIRONMENT_PREFIX = "FEDAQ_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingSettings(_Section):
    """How each client trains; what is left out is the task's own default."""

    local_epochs: int | None = Field(None, ge=1, le=10_000)
    batch_size: int | None = Field(None, ge=1, le=1_000_000)
    learning_rate: float | None = Field(None, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1)


class FixedSettings(_Section):
    """Scheme ``fixed``: the same bits in every round."""

    uplink_bits: int = Field(8, description="1 to 16, or 32 for raw float32")
    downlink_bits: int = Field(8, description="1 to 16, or 32 for raw float32")

    @model_validator(mode="after")
    def _widths(self) -> "FixedSettings":
        for name in ("uplink_bits", "downlink_bits"):
            bits = getattr(self, name)
            if not (1 <= bits <= 16 or bits == 32):
                raise ValueError(f"{name}: {bits} bits; 1 to 16, or 32 for raw, are possible")
        return self


class FedaqSettings(_Section):
    """Scheme ``fedaq``: quantization steps, in the unit of the weights."""

    uplink_resolution: float = Field(0.02, gt=0)
    downlink_resolution: float = Field(0.04, gt=0)
    min_bits: int = Field(1, ge=1, le=16)
    max_bits: int = Field(16, ge=1, le=16)

    @model_validator(mode="after")
    def _order(self) -> "FedaqSettings":
        if self.min_bits > self.max_bits:
            raise ValueError(f"min_bits {self.min_bits} is above max_bits {self.max_bits}")
        return self


class LinkSettings(_Section):
    """Joules per bit: given, or from Shannon's rate when a transmit power is given."""

    j_per_bit: float | None = Field(None, gt=0)
    transmit_power_w: float | None = Field(None, gt=0)
    bandwidth_hz: float = Field(1e6, gt=0)
    distance_m: float = Field(100.0, gt=0)
    noise_w_per_hz: float = Field(4e-21, gt=0, description="thermal noise at 290 K")
    gain_at_1m: float = Field(1e-3, gt=0, le=1)
    path_loss_exponent: float = Field(3.0, ge=1, le=8)

    @model_validator(mode="after")
    def _one_way(self) -> "LinkSettings":
        if self.j_per_bit is not None and self.transmit_power_w is not None:
            raise ValueError("give j_per_bit or transmit_power_w, not both")
        return self

    def energy_j_per_bit(self) -> float:
        """Return the joules that one bit costs on this link."""
        if self.transmit_power_w is None:
            return self.j_per_bit if self.j_per_bit is not None else 1e-7
        rate_bps = shannon_rate_bps(
            bandwidth_hz=self.bandwidth_hz,
            transmit_power_w=self.transmit_power_w,
            distance_m=self.distance_m,
            noise_w_per_hz=self.noise_w_per_hz,
            gain_at_1m=self.gain_at_1m,
            path_loss_exponent=self.path_loss_exponent,
        )
        return self.transmit_power_w / rate_bps


class EnergySettings(_Section):
    """The energy model of clients that do not state their own radio."""

    uplink: LinkSettings = LinkSettings()
    downlink: LinkSettings = LinkSettings()
    broadcast: bool = Field(False, description="one transmission reaches every client")

    def radio_cost(self) -> RadioCost:
        """Return the joules per bit in both directions."""
        return RadioCost(self.uplink.energy_j_per_bit(), self.downlink.energy_j_per_bit())


class NetworkSettings(_Section):
    """Where the server listens and how long it is patient."""

    host: str = "127.0.0.1"
    port: int = Field(50051, ge=0, le=65535, description="0: any free port")
    chunk_bytes: int = Field(256 * 1024, ge=1024, le=2 * 1024 * 1024)
    heartbeat_interval_s: float = Field(5.0, gt=0)
    join_timeout_s: float = Field(300.0, gt=0, description="waiting for the clients")
    round_deadline_s: float = Field(600.0, gt=0)


class Settings(_Section):
    """Everything that decides what a run does."""

    task: str = "digits"
    data: Path | None = None
    clients: int = Field(5, ge=1, le=100_000)
    rounds: int = Field(30, ge=1, le=1_000_000)
    scheme: str = "fedaq"
    seed: int = Field(1, ge=0, lt=2**63)
    base: Literal["broadcast", "exact"] = Field(
        "broadcast", description="updates are added to the broadcast model, or to the exact one"
    )
    capture: bool = Field(False, description="keep every payload in DIR/payloads")
    training: TrainingSettings = TrainingSettings()
    fixed: FixedSettings = FixedSettings()
    fedaq: FedaqSettings = FedaqSettings()
    energy: EnergySettings = EnergySettings()
    network: NetworkSettings = NetworkSettings()


Layer = dict[str, Any]


def load_settings(
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
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

    Raises
    ------
    UserError
        If the file cannot be read or a setting is unknown or impossible; the message
        names the source.
    """
    merged: Layer = {}
    sources: dict[str, str] = {}
    if config is not None:
        _merge(merged, _read_toml(config), sources, str(config))
    variables = os.environ if environment is None else environment
    for name, text in sorted(variables.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _merge(merged, _nested(key, _value(text)), sources, f"environment {name}")
    for key, value in (flags or {}).items():
        if value is not None:
            flag = "--" + key.rpartition(".")[2].replace("_", "-")
            _merge(merged, _nested(key, value), sources, flag)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {assignment}: write it as key=value")
        _merge(merged, _nested(key.strip(), _value(text.strip())), sources, f"--set {assignment}")
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise UserError(_explain(error, sources)) from None


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
    source = next(
        (sources[key] for key in (dotted, ".".join(path[:-1])) if key in sources), "settings"
    )
    if problem["type"] == "extra_forbidden":
        known = _names(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{source}: {dotted} is not a setting; {hint}"
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
