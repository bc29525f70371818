"""What may be spent: joules, bytes of a data plan, money; and how people write it.

Every budget is a sum of linear costs: a byte takes so much of it, by who sends it and which way.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_UP, Context
from math import isfinite

from fedaq.energy.cost import RadioCost
from fedaq.energy.radios import known_radio

# An amount for each unit: joules, bytes, or a currency's three letters.
Amounts = Mapping[str, float]

JOULES, BYTES = "J", "B"
MEGABYTE = 1e6

_PREFIXES = {
    JOULES: {"u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6},
    BYTES: {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
}
_UNITS = {f"{p}{unit}": (f, unit) for unit, all_p in _PREFIXES.items() for p, f in all_p.items()}
_AMOUNT = re.compile(r"(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+) ?([A-Za-z]+)")
_CURRENCY = re.compile(r"[A-Z]{3}")
_HOW = "write joules, bytes or money, for example 8J, 500mJ, 20MB or 3EUR"


def is_money(unit: str) -> bool:
    """Tell whether a unit is a currency."""
    return unit not in _PREFIXES


def is_currency(text: str) -> bool:
    """Tell whether this may name one."""
    return _CURRENCY.fullmatch(text) is not None


def written(amount: float, unit: str, *, up: bool = False) -> str:
    """Return an amount as people write it: ``8 J``, ``20 MB``, ``3 EUR``.

    Rounded `up`, who asks for what is written gets at least as much.
    """
    factor, prefix = 1.0, ""
    if unit == BYTES:
        fitting = [(f, p) for p, f in _PREFIXES[BYTES].items() if amount >= f]
        factor, prefix = max(fitting, default=(1.0, ""))
    digits = Context(prec=6, rounding=ROUND_UP if up else None).create_decimal(amount / factor)
    return f"{float(digits):.6g} {prefix}{unit}"


def parse_amounts(text: object) -> dict[str, float]:
    """Return what a budget allows: ``8J``, or of several kinds at once, ``8J,20MB``.

    Raises
    ------
    ValueError
        If it is none; the message says how to write it.
    """
    amounts: dict[str, float] = {}
    for part in str(text).split(","):
        amount, unit = _amount(part.strip())
        if unit in amounts:
            raise ValueError(f"{text}: two amounts of {unit}; give one")
        amounts[unit] = amount
    if sum(map(is_money, amounts)) > 1:
        raise ValueError(f"{text}: two currencies; give one")
    return amounts


def _amount(text: str) -> tuple[float, str]:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no amount; {_HOW}")
    number, unit = float(match[1]), match[2]
    if unit not in _UNITS and not is_currency(unit):
        raise ValueError(f"{text!r}: {unit} is no unit; {_HOW}")
    factor, base = _UNITS.get(unit, (1.0, unit))
    if not 0 < number * factor < 1e18:
        raise ValueError(f"{text!r}: more than nothing is needed")
    return number * factor, base


@dataclass(frozen=True)
class DeviceBudgets:
    """What each device may spend in the run.

    Attributes
    ----------
    everyone : mapping of str to float
        Of a device that is not named.
    named : mapping of str to mapping
        By the names of clients; of a kind that is not given there, `everyone` holds.
    """

    everyone: Amounts = field(default_factory=dict)
    named: Mapping[str, Amounts] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, float]:
        """Return what a device may spend."""
        return {**self.everyone, **self.named.get(name, {})}

    def units(self) -> set[str]:
        """Return the units of all of them."""
        return {unit for each in (self.everyone, *self.named.values()) for unit in each}


def parse_device_budgets(text: object) -> DeviceBudgets:
    """Return what devices may spend: ``2J`` each, or by name, ``2J,client-3:500mJ,client-3:1MB``.

    Raises
    ------
    ValueError
        If it is none.
    """
    shares: dict[str, list[str]] = {}
    for part in str(text).split(","):
        name, colon, amount = part.strip().rpartition(":")
        if colon and not name:
            raise ValueError(f"{part.strip()!r}: the name of a client goes before the colon")
        shares.setdefault(name, []).append(amount)
    named = {name: parse_amounts(",".join(amounts)) for name, amounts in shares.items()}
    return DeviceBudgets(named.pop("", {}), named)


@dataclass(frozen=True)
class Tariff:
    """What a megabyte of payload costs, in the currency of the budget.

    Attributes
    ----------
    everyone : float
        For a radio that is not named.
    by_radio : mapping of str to float
        By the names of radios.
    """

    everyone: float = 0.0
    by_radio: Mapping[str, float] = field(default_factory=dict)

    def per_byte(self, radio: str) -> float:
        """Return the price of a byte."""
        return self.by_radio.get(radio, self.everyone) / MEGABYTE


def parse_tariff(text: object) -> Tariff:
    """Return a tariff: ``0.5`` a megabyte, or by radio, ``0.5,lte-m:2,wifi:0``.

    Raises
    ------
    ValueError
        If it is none.
    """
    prices: dict[str, float] = {}
    for part in str(text).split(","):
        radio, _, price = part.strip().rpartition(":")
        try:
            prices[radio] = float(price)
        except ValueError:
            raise ValueError(
                f"{part.strip()!r} is no price of a megabyte; write 0.5, or by radio, lte-m:2"
            ) from None
        if not (isfinite(prices[radio]) and prices[radio] >= 0):
            raise ValueError(f"{part.strip()!r}: a price is 0 or more")
        if radio:
            known_radio(radio, "constant", "shannon")
    return Tariff(prices.pop("", 0.0), prices)


@dataclass(frozen=True)
class BytePrice:
    """What a payload byte takes of a budget of its device.

    Attributes
    ----------
    up, down : float
        Sent, and received.
    """

    up: float
    down: float


def byte_price(cost: RadioCost, unit: str) -> BytePrice:
    """Return what a byte takes of a device's budget of this kind.

    A device pays for what it sends and what it listens to, not for what the serving side sends.
    """
    if unit == JOULES:
        return BytePrice(8 * cost.uplink_j_per_bit, 8 * cost.receive_j_per_bit)
    if unit == BYTES:
        return BytePrice(1.0, 1.0)
    return BytePrice(cost.money_per_byte, cost.money_per_byte)
