"""The energy model: what a bit costs, and the joules of a run."""

from dataclasses import replace

from pydantic import Field, field_validator, model_validator

from fedaq.energy.budgets import (
    JOULES,
    DeviceBudgets,
    Tariff,
    is_money,
    parse_amounts,
    parse_device_budgets,
    parse_tariff,
)
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

    budget: str | None = Field(
        None, description="for the whole run: 8J, 20MB or 3EUR, or several, 8J,20MB"
    )
    device_budget: str | None = Field(
        None, description="for each device, or one by its name: 2J,client-3:500mJ"
    )
    tariff: str | None = Field(
        None, description="money for a megabyte of payload, or by radio: 0.5,lte-m:2,wifi:0"
    )
    training_w: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="of a device while it trains, if it states none",
    )
    budget_j: float | None = Field(None, gt=0, description="budget in joules, by its older name")
    radio: str = Field("constant", description="constant, shannon, or a preset (fedaq radio)")
    broadcast: bool = Field(False, description="one transmission reaches every client")
    uplink: CostSettings = CostSettings()
    downlink: CostSettings = CostSettings()
    receive: CostSettings = CostSettings()
    shannon: ShannonSettings = ShannonSettings()

    @field_validator("budget", "device_budget", "tariff", mode="before")
    @classmethod
    def _as_written(cls, value: object) -> object:
        # TOML has a bare number as one.
        return str(value) if isinstance(value, int | float) else value

    @field_validator("budget")
    @classmethod
    def _is_a_budget(cls, text: str | None) -> str | None:
        parse_amounts(text or "1J")
        return text

    @field_validator("device_budget")
    @classmethod
    def _are_budgets(cls, text: str | None) -> str | None:
        parse_device_budgets(text or "1J")
        return text

    @field_validator("tariff")
    @classmethod
    def _is_a_tariff(cls, text: str | None) -> str | None:
        parse_tariff(text or "0")
        return text

    @field_validator("radio")
    @classmethod
    def _known(cls, radio: str) -> str:
        return known_radio(radio, "constant", "shannon")

    @model_validator(mode="after")
    def _paid(self) -> "EnergySettings":
        shannon = self.shannon.cost_at(self.shannon.max_distance_m)
        checked_cost(self._replaced(shannon if self.radio == "shannon" else self._fixed()))
        return self

    @model_validator(mode="after")
    def _has_one_budget_of_a_kind(self) -> "EnergySettings":
        if self.budget_j is not None and self.budget and JOULES in parse_amounts(self.budget):
            raise ValueError("budget_j and a budget in joules are two names of one thing; give one")
        money = sorted(filter(is_money, {*self.run_budget, *self.device_budgets.units()}))
        if len(money) > 1:
            raise ValueError(f"budgets in {' and '.join(money)}; one currency is possible")
        if money and self.tariff is None:
            raise ValueError(f"a budget in {money[0]} needs a tariff, what a megabyte costs")
        return self

    @property
    def run_budget(self) -> dict[str, float]:
        """What the whole run may spend, by the unit; empty without a budget."""
        amounts = {} if self.budget is None else parse_amounts(self.budget)
        return amounts if self.budget_j is None else {**amounts, JOULES: self.budget_j}

    @property
    def joules(self) -> float | None:
        """The joules that the whole run may spend; None for any number."""
        return self.run_budget.get(JOULES)

    @property
    def device_budgets(self) -> DeviceBudgets:
        """What each device may spend."""
        return parse_device_budgets(self.device_budget) if self.device_budget else DeviceBudgets()

    @property
    def tariffs(self) -> Tariff:
        """What a megabyte costs."""
        return Tariff() if self.tariff is None else parse_tariff(self.tariff)

    @property
    def fades(self) -> bool:
        """Whether a radio may be cheaper in a later round."""
        return self.radio == "shannon" and self.shannon.fading

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
            "money_per_byte": self.tariffs.per_byte(self.radio),
            "uplink_j_per_bit": self.uplink.j_per_bit,
            "downlink_j_per_bit": self.downlink.j_per_bit,
            "receive_j_per_bit": self.receive.j_per_bit,
        }
        return replace(cost, **{name: value for name, value in given.items() if value is not None})
