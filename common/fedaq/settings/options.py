"""Settings as keyword arguments, as programs give them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from fedaq.settings.energy import EnergySettings
from fedaq.settings.network import LimitsSettings, NetworkSettings
from fedaq.settings.run import (
    CodingSettings,
    PartitionSettings,
    PrivacySettings,
    ServerOptimizerSettings,
    TrainingSettings,
)
from fedaq.settings.schemes import (
    AdaquantflSettings,
    DadaquantSettings,
    FedaqSettings,
    FeddqSettings,
    FixedSettings,
    StcSettings,
    TopkSettings,
)
from fedaq.settings.section import Section

Names = Mapping[str, Any]
# Settings of the section `energy` that have a short name.
_SHORT = frozenset({"budget", "device_budget", "tariff", "budget_j"})


class Options(TypedDict, total=False):
    """All settings of a run but its task, by their own names; what is left out has its default.

    A section is one of the classes in `fedaq.settings`, of which only what was given counts, or a
    mapping: ``fixed=FixedSettings(uplink_bits=4)`` or ``fixed={"uplink_bits": 4}``.

    Attributes
    ----------
    budget, device_budget, tariff : str
        ``energy.budget`` and so on in short: ``"8J"`` for the whole run, ``"2J"`` for each device.
    budget_j : float
        ``energy.budget_j`` in short: joules for the whole run.
    """

    budget: str | None
    device_budget: str | None
    tariff: str | float | None
    budget_j: float | None
    data: Path | str | None
    clients: int
    min_clients: float
    clients_per_round: float | None
    rounds: int
    scheme: str | Callable[..., Any]
    seed: int
    start_from: Path | str | None
    base: Literal["broadcast", "exact"] | None
    aggregation: str | Callable[..., Any]
    trim: float
    target: float | None
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: int | None
    capture: bool
    training: TrainingSettings | Names
    server_optimizer: ServerOptimizerSettings | Names
    fixed: FixedSettings | Names
    adaquantfl: AdaquantflSettings | Names
    dadaquant: DadaquantSettings | Names
    feddq: FeddqSettings | Names
    stc: StcSettings | Names
    topk: TopkSettings | Names
    fedaq: FedaqSettings | Names
    energy: EnergySettings | Names
    coding: CodingSettings | Names
    privacy: PrivacySettings | Names
    partition: PartitionSettings | Names
    network: NetworkSettings | Names
    limits: LimitsSettings | Names


def named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by the dotted names of the settings that they give, as JSON has values."""
    given = {f"energy.{name}" if name in _SHORT else name: options[name] for name in options}
    return dict(_flat(given, ""))


def _flat(given: Mapping[str, Any], at: str) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in given.items():
        if isinstance(value, Section):
            flat += _flat(value.model_dump(mode="json", exclude_unset=True), f"{at}{name}.")
        elif isinstance(value, Mapping):
            flat += _flat(value, f"{at}{name}.")
        elif value is not None:
            flat.append((at + name, str(value) if isinstance(value, Path) else value))
    return flat
