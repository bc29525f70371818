"""What a device has for a run, besides its radio: what it may spend, and what training takes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedaq.energy.budgets import BYTES, JOULES, is_money, parse_amounts
from fedaq.energy.cost import RadioCost
from fedaq.settings import ClientSettings
from fedaq.v1 import federation_pb2 as pb

# Returns the joules that a device has taken so far, from any beginning.
Meter = Callable[[], float]


@dataclass(frozen=True)
class Means:
    """What a client states of its device.

    Attributes
    ----------
    budget : mapping of str to float
        What it may spend in the run, by the unit.
    tariff : float, optional
        Money for a megabyte; None: the server's settings say.
    radio_name : str
        Of a preset; empty for another.
    training_w : float, optional
        Power while it trains; None: the server's settings say.
    meter : callable, optional
        Measures what training takes.
    """

    budget: Mapping[str, float] = field(default_factory=dict)
    tariff: float | None = None
    radio_name: str = ""
    training_w: float | None = None
    meter: Meter | None = None

    def radio_message(self, radio: RadioCost | None) -> pb.Radio | None:
        """Return what its link costs as a client joins with it, None if the server is to know."""
        if radio is None:
            return None
        return pb.Radio(
            uplink_j_per_bit=radio.uplink_j_per_bit,
            downlink_j_per_bit=radio.downlink_j_per_bit,
            receive_j_per_bit=radio.receive_j_per_bit,
            name=self.radio_name,
        )

    def stated(self) -> pb.DeviceBudget | None:
        """Return the budget as a client joins with it, None if it has none."""
        if not self.budget:
            return None
        money = {unit: amount for unit, amount in self.budget.items() if is_money(unit)}
        said = pb.DeviceBudget(currency=next(iter(money), ""))
        for unit, amount in self.budget.items():
            if unit == JOULES:
                said.joules = amount
            elif unit == BYTES:
                said.bytes = int(amount)
            else:
                said.money = amount
        return said


def means_of(own: ClientSettings, meter: Meter | None = None) -> Means:
    """Return what the settings say of a device."""
    budget = {} if own.device_budget is None else parse_amounts(own.device_budget)
    return Means(budget, own.tariff, own.radio or "", own.training_w, meter)


class Effort:
    """What one training takes, from when this is made.

    Parameters
    ----------
    means : Means
    """

    def __init__(self, means: Means) -> None:
        self._means, self._began_s = means, time.perf_counter()
        self._began_j = 0.0 if means.meter is None else means.meter()

    def report(self, report: pb.RangeReport) -> None:
        """Write into a report what it took so far."""
        report.training_s = time.perf_counter() - self._began_s
        if self._means.meter is not None:
            report.training_j = max(0.0, self._means.meter() - self._began_j)
        elif self._means.training_w is not None:
            report.training_j = self._means.training_w * report.training_s
