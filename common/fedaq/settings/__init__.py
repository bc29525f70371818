"""Settings of a run: defaults, then a TOML file, the environment, and flags.

Every setting has one name, the same everywhere: ``energy.broadcast`` is
``broadcast = true`` under ``[energy]`` in the file, ``FEDAQ_ENERGY__BROADCAST`` in
the environment and ``--set energy.broadcast=true`` on the command line.

Here is what can be set and how it is read. What a setting does is where it is used.
"""

from fedaq.settings.energy import MAX_DISTANCE_M, CostSettings, EnergySettings, ShannonSettings
from fedaq.settings.loading import TOKEN_VARIABLE, flag_of, flattened, load_settings
from fedaq.settings.network import HOW_REACHED, ClientSettings, LimitsSettings, NetworkSettings
from fedaq.settings.options import Options, named
from fedaq.settings.run import (
    CodingSettings,
    PartitionSettings,
    PrivacySettings,
    ServerOptimizerSettings,
    Settings,
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

__all__ = [
    "HOW_REACHED",
    "MAX_DISTANCE_M",
    "TOKEN_VARIABLE",
    "AdaquantflSettings",
    "ClientSettings",
    "CodingSettings",
    "CostSettings",
    "DadaquantSettings",
    "EnergySettings",
    "FedaqSettings",
    "FeddqSettings",
    "FixedSettings",
    "LimitsSettings",
    "NetworkSettings",
    "Options",
    "PartitionSettings",
    "PrivacySettings",
    "ServerOptimizerSettings",
    "Settings",
    "ShannonSettings",
    "StcSettings",
    "TopkSettings",
    "TrainingSettings",
    "flag_of",
    "flattened",
    "load_settings",
    "named",
]
