"""The energy model: what a bit costs, and the joules of a run."""

from dataclasses import replace

from pydantic import Field, field_validator, model_validator

from fedaq.energy.cost import (
    FADING_FLOOR,
    MAX_J_PER_BIT,
    RadioCost,
    checked_cost,
    client_distance_m,
    rayleigh_power_gain,
    shannon_rate_bps,
)
from fedaq.energy.radios import CONSTANT, PRESETS, known_radio
from fedaq.settings.section import Section

MAX_DISTANCE_M = 1e6


class ShannonSettings(Section):
    """Radio ``shannon``: the rate from power, bandwidth, distance, noise and fading."""

    bandwidth_hz: float = Field(1e6, ge=1, le=1e12, description="of the channel")
    uplink_power_w: float = Field(0.1, gt=0, le=1e6, description="radiated by a client")
    downlink_power_w: float = Field(1.0, gt=0, le=1e6, description="radiated by the serving side")
    receive_power_w: float = Field(0.1, ge=0, le=1e6, description="drawn by a client that listens")
    min_distance_m: float = Field(10.0, ge=1, le=MAX_DISTANCE_M, description="nearest client")
    max_distance_m: float = Field(100.0, ge=1, le=MAX_DISTANCE_M, description="farthest client")
    gain_at_1m: float = Field(1e-3, gt=0, le=1, description="power gain at 1 m")
    path_loss_exponent: float = Field(3.0, ge=1, le=8, description="2 in free space")
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


class CostSettings(Section):
    """Joules per bit that replace the figure of the radio."""

    j_per_bit: float | None = Field(
        None, ge=0, lt=MAX_J_PER_BIT, description="[what the radio takes]"
    )


class EnergySettings(Section):
    """The energy model of clients that do not state their own radio."""

    budget_j: float | None = Field(None, gt=0, description="joules for the whole run")
    radio: str = Field("constant", description="constant, shannon, or a preset (fedaq radio)")
    broadcast: bool = Field(False, description="one transmission reaches every client")
    uplink: CostSettings = CostSettings()
    downlink: CostSettings = CostSettings()
    receive: CostSettings = CostSettings()
    shannon: ShannonSettings = ShannonSettings()

    @field_validator("radio")
    @classmethod
    def _known(cls, radio: str) -> str:
        return known_radio(radio, "constant", "shannon")

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
