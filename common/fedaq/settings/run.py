"""All settings of a run."""

from math import ceil
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fedaq.settings.energy import EnergySettings
from fedaq.settings.network import ClientSettings, LimitsSettings, NetworkSettings
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

AGGREGATIONS = ("mean", "median", "trimmed_mean")
# Of two, each would know the other's update from the sum.
FEWEST_MASKED = 3


class TrainingSettings(Section):
    """How each client trains; what is left out is the task's own default."""

    local_epochs: int | None = Field(
        None, ge=1, le=10_000, description="passes over its data in a round [the task's]"
    )
    batch_size: int | None = Field(None, ge=1, le=1_000_000, description="in examples [the task's]")
    learning_rate: float | None = Field(None, gt=0, description="[the task's]")
    momentum: float | None = Field(None, ge=0, lt=1, description="of sgd [the task's]")
    optimizer: Literal["sgd", "adamw"] | None = Field(None, description="sgd or adamw [the task's]")
    weight_decay: float | None = Field(None, ge=0, description="[the task's]")
    schedule: Literal["constant", "cosine", "step"] | None = Field(
        None, description="of the learning rate over rounds: constant, cosine or step [the task's]"
    )
    warmup_rounds: int | None = Field(
        None, ge=0, le=1_000_000, description="in which the learning rate rises [the task's]"
    )
    step_rounds: int | None = Field(
        None, ge=1, le=1_000_000, description="step: rounds between two steps [the task's]"
    )
    step_factor: float | None = Field(
        None, gt=0, le=1, description="step: what it multiplies the rate by [the task's]"
    )
    proximal: float | None = Field(None, ge=0, description="mu of FedProx; 0: none [the task's]")
    clip_norm: float | None = Field(
        None, ge=0, description="largest norm of a gradient; 0: any [the task's]"
    )
    mixed_precision: bool | None = Field(
        None, description="compute in bfloat16 where torch's autocast does [the task's]"
    )
    keep_optimizer: bool | None = Field(
        None, description="a round goes on with the moments of the last one [the task's]"
    )


class ServerOptimizerSettings(Section):
    """What the server makes of the mean update (Reddi et al., arXiv 2003.00295)."""

    kind: Literal["none", "fedavgm", "fedadam", "fedyogi"] = Field(
        "none", description="none, fedavgm, fedadam or fedyogi"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="[1 for fedavgm, 0.01 for the others]"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="beta 1: weight of earlier rounds")
    beta2: float = Field(0.99, ge=0, lt=1, description="the same, of squares; not of fedavgm")
    tau: float = Field(1e-3, gt=0, description="least that a step is divided by; not of fedavgm")


class CodingSettings(Section):
    """What is done to payloads besides the scheme's choice of bits."""

    entropy: bool | None = Field(
        None, description="entropy-code where that is shorter [true for fedaq, stc, topk]"
    )
    downlink: Literal["model", "difference"] | None = Field(
        None,
        description="send the model, or what clients lack of it [difference for fedaq, stc, topk]",
    )
    common_grid: bool | None = Field(
        None,
        description="all updates of a round have the same steps and range, and small weights "
        "[true with secure aggregation, and with privacy.epsilon]",
    )


class PrivacySettings(Section):
    """What the server cannot see, and what a model may tell of a client's data.

    See docs/explanation/secure-aggregation.md and docs/explanation/differential-privacy.md.
    """

    secure_aggregation: bool = Field(
        False,
        description="updates are masked: the server learns their sum alone; a client refuses "
        "rounds without",
    )
    epsilon: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="differential privacy of each client: all rounds together tell no more than "
        "this; noise is added to each sum; a client refuses rounds without [none]",
    )
    delta: float = Field(
        1e-5, gt=0, lt=1, description="of epsilon: well below 1 by the number of clients"
    )
    clip: float | None = Field(
        None,
        gt=0,
        le=1024,
        description="largest L2 norm of an update; longer ones are shortened [that of half of "
        "the updates, as noisy counts tell]",
    )


class PartitionSettings(Section):
    """How clients that are told ``--partition 2/5`` share the data of one machine."""

    kind: Literal["iid", "shards", "dirichlet"] = Field(
        "iid", description="iid, shards or dirichlet"
    )
    alpha: float = Field(0.5, ge=1e-3, le=1e6, description="dirichlet: smaller is less alike")
    shards_per_client: int = Field(2, ge=1, le=1_000_000, description="shards")


class Settings(Section):
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
    rounds: int = Field(30, ge=1, le=1_000_000, description="at most; a budget may pay for fewer")
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
    aggregation: str = Field(
        "mean",
        description="of the updates, coordinate by coordinate: mean, median, trimmed_mean or "
        "package.module:attribute; median and trimmed_mean are not weighted",
    )
    trim: float = Field(
        0.2, gt=0, lt=0.5, description="trimmed_mean: share of clients left out at each end"
    )
    target: float | None = Field(
        None,
        allow_inf_nan=False,
        description="end the run at the first round whose test reaches this, in the task's metric",
    )
    target_accuracy: float | None = Field(
        None, gt=0, le=1, description="the same for an accuracy, by its older name"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "cpu", description="that trains and tests: auto, cpu, cuda or mps"
    )
    threads: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="of torch; 0: all cores, shared by clients that share the machine [0 for a "
        "client without partition, else 1]",
    )
    capture: bool = Field(False, description="keep every payload in DIR/payloads")
    training: TrainingSettings = TrainingSettings()
    server_optimizer: ServerOptimizerSettings = ServerOptimizerSettings()
    fixed: FixedSettings = FixedSettings()
    adaquantfl: AdaquantflSettings = AdaquantflSettings()
    dadaquant: DadaquantSettings = DadaquantSettings()
    feddq: FeddqSettings = FeddqSettings()
    stc: StcSettings = StcSettings()
    topk: TopkSettings = TopkSettings()
    fedaq: FedaqSettings = FedaqSettings()
    energy: EnergySettings = EnergySettings()
    coding: CodingSettings = CodingSettings()
    privacy: PrivacySettings = PrivacySettings()
    partition: PartitionSettings = PartitionSettings()
    network: NetworkSettings = NetworkSettings()
    client: ClientSettings = ClientSettings()
    limits: LimitsSettings = LimitsSettings()

    @field_validator("aggregation")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in AGGREGATIONS and ":" not in name:
            raise ValueError(f"{', '.join(AGGREGATIONS)}, or your own: package.module:attribute")
        return name

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

    @model_validator(mode="after")
    def _has_one_target(self) -> "Settings":
        if self.target is not None and self.target_accuracy is not None:
            raise ValueError("target and target_accuracy are two names of one thing; give target")
        return self

    @model_validator(mode="after")
    def _fits_one_grid(self) -> "Settings":
        why = self._no_common_grid() if self.common_grid else ""
        if not why and (self.privacy.secure_aggregation or self.is_private):
            why = self._no_sums_alone()
        if not why and self.privacy.secure_aggregation:
            why = self._too_few_to_mask()
        if why:
            raise ValueError(f"{self.grid_setting}: {why}")
        return self

    def _no_common_grid(self) -> str:
        """Return what of the settings needs updates that have each its own grid."""
        if self.coding.common_grid is False:
            return "coding.common_grid=false leaves each client its own"
        if self.scheme != "fedaq":
            return f"all updates of a round are on one grid, which scheme {self.scheme} has not"
        if not self.entropy:
            return "a common grid has steps, which coding.entropy=false has not"
        return ""

    def _no_sums_alone(self) -> str:
        """Return what of the settings needs more of updates than their sum."""
        if self.aggregation != "mean":
            return f"only a mean can be had; aggregation {self.aggregation} needs each update"
        if self.capture:
            return "capture=true keeps each update, which nobody is to see"
        if self.limits.norm_factor not in (0, LimitsSettings().norm_factor):
            return "limits.norm_factor needs the norm of each update; leave it out"
        if self.is_private and self.fedaq.uplink_resolution is not None:
            return "the uplink's steps follow from the noise; leave out fedaq.uplink_resolution"
        return ""

    def _too_few_to_mask(self) -> str:
        if self.taking_part < FEWEST_MASKED:
            return f"{self.taking_part} clients do not hide each other; {FEWEST_MASKED} do"
        return ""

    @property
    def common_grid(self) -> bool:
        """Whether the updates of a round are all on one grid."""
        return bool(self.grid_setting)

    @property
    def grid_setting(self) -> str:
        """The setting that puts them there; empty if none does."""
        if self.privacy.secure_aggregation:
            return "privacy.secure_aggregation"
        if self.is_private:
            return "privacy.epsilon"
        return "coding.common_grid" if self.coding.common_grid else ""

    @property
    def is_private(self) -> bool:
        """Whether noise hides what each client adds to the model."""
        return self.privacy.epsilon is not None

    @property
    def metric_target(self) -> float | None:
        """What the test of a round must reach for the run to end."""
        return self.target_accuracy if self.target is None else self.target

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
    def taking_part(self) -> int:
        """Number of clients of a round, if all are there."""
        return min(self.sample or self.clients, self.clients)

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
        """The other schemes are compared as their authors describe them.

        Sparse ones are nothing without a coder of zeros, and nothing but differences is sparse.
        """
        return self.scheme in ("fedaq", "stc", "topk")


def _number_of(number_or_share: float, clients: int) -> int:
    return int(number_or_share if number_or_share >= 1 else ceil(number_or_share * clients))
