"""The settings of the built-in schemes."""

from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fedaq.settings.section import Section


def _check_width(bits: int) -> int:
    if not (1 <= bits <= 16 or bits == 32):
        raise ValueError("1 to 16 bits, or 32 for raw float32, are possible")
    return bits


def _ratio(value: object) -> object:
    """Read ``1/400``; what is no ratio is for others to judge."""
    try:
        return float(Fraction(value)) if isinstance(value, str) else value
    except (ValueError, ZeroDivisionError):
        return value


Width = Annotated[int, AfterValidator(_check_width)]
Share = Annotated[float, BeforeValidator(_ratio)]

# Resolution of entropy-coded updates that serves without a budget, in the unit of weights
# (docs/research/resolutions.md).
CODED_UPLINK = 0.1


class FixedSettings(Section):
    """Scheme ``fixed``: the same bits in every round."""

    uplink_bits: Width = Field(8, description="1 to 16, or 32 for raw float32")
    downlink_bits: Width = Field(8, description="1 to 16, or 32 for raw float32")
    clip: bool = Field(False, description="code what lies within b + 2 standard deviations")


class AdaquantflSettings(Section):
    """Scheme ``adaquantfl``; `s0` is the best value its authors report."""

    s0: int = Field(2, ge=1, le=2**16 - 1, description="quantization levels of the first round")
    downlink_bits: Width = Field(32, description="1 to 16, or 32 for raw float32")


class DadaquantSettings(Section):
    """Scheme ``dadaquant``, with the names of its paper (section 3.4)."""

    q_min: int = Field(1, ge=1, le=2**16 - 1, description="quantization level of the first round")
    q_max: int = Field(16, ge=1, le=2**16 - 1, description="where the doubling ends")
    psi: float = Field(0.9, ge=0, lt=1, description="weight of the past in the running loss")
    phi: int | None = Field(
        None, ge=2, description="rounds across which losses are compared [a tenth of the run]"
    )
    downlink_bits: Width = Field(32, description="1 to 16, or 32 for raw float32")

    @model_validator(mode="after")
    def _order(self) -> "DadaquantSettings":
        if self.q_min > self.q_max:
            raise ValueError(f"q_min {self.q_min} is above q_max {self.q_max}")
        return self


class FeddqSettings(Section):
    """Scheme ``feddq``; the resolution is that of its authors on Fashion-MNIST."""

    resolution: float = Field(0.005, gt=0, description="in the unit of the weights")
    downlink_bits: Width = Field(32, description="1 to 16, or 32 for raw float32")


class StcSettings(Section):
    """Scheme ``stc``; the fraction is that of its authors' experiments."""

    fraction: Share = Field(
        1 / 400, gt=0, le=1, description="of a tensor's values that is sent, as 1/400 or 0.0025"
    )


class TopkSettings(Section):
    """Scheme ``topk``."""

    fraction: Share = Field(
        1 / 100, gt=0, le=1, description="of a tensor's values that is sent, as 1/100 or 0.01"
    )
    bits: int = Field(4, ge=2, le=8, description="of each of them, its sign included")


class FedaqSettings(Section):
    """Scheme ``fedaq``; the resolutions, steps in the unit of the weights, serve without budget."""

    uplink_resolution: float | None = Field(
        None,
        gt=0,
        description="[as updates bear; 0.1 if the other is set; packed: 0.03]",
    )
    downlink_resolution: float | None = Field(
        None,
        gt=0,
        description="[as updates bear; 0.03 if the other is set; models: 0.16]",
    )
    clip: bool = Field(True, description="code what lies within b + 2 standard deviations")
    min_bits: int = Field(1, ge=1, le=16, description="per value, at least")
    max_bits: int = Field(16, ge=1, le=16, description="per value, at most")

    @property
    def has_no_steps(self) -> bool:
        """Whether neither direction has a resolution."""
        return self.uplink_resolution is None and self.downlink_resolution is None

    @model_validator(mode="after")
    def _order(self) -> "FedaqSettings":
        if self.min_bits > self.max_bits:
            raise ValueError(f"min_bits {self.min_bits} is above max_bits {self.max_bits}")
        return self
