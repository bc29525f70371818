"""What the run and its devices may spend, and what they have spent.

A budget is an amount, and what a byte takes of it, by who sends it and which way: joules, bytes of
a data plan or money. What is remembered is plain data, so that a run that is resumed goes on to the
byte.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import floor, inf
from typing import Any

from fedaq.energy.budgets import (
    BYTES,
    JOULES,
    Amounts,
    DeviceBudgets,
    byte_price,
    written,
)
from fedaq.energy.cost import RadioCost
from fedaq.settings import Settings

# Sums of the same joules in another order differ by less, as a share of the budget.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Purse:
    """One budget as it stands when a round begins, and what a payload byte takes of it.

    Attributes
    ----------
    name : str
        As a sentence about it begins: ``the budget of client-3, 0.05 J,``.
    unit : str
        Joules, bytes or a currency.
    left : float
        Of the amount.
    rounds : float
        In which it is to last; less than those left for a device that is not drawn for each.
    up : mapping of str to float
        For a byte of each client's update that takes of it.
    down : float
        For a byte of the broadcast.
    fixed : float
        Goes in this round to clients that missed models.
    client : str
        Whose it is; empty for the run's.
    """

    name: str
    unit: str
    left: float
    rounds: float
    up: Mapping[str, float]
    down: float
    fixed: float = 0.0
    client: str = ""


@dataclass(frozen=True)
class Empty:
    """A device that has spent its budget, since which round, and which it was."""

    name: str
    round: int
    reason: str


@dataclass(frozen=True)
class Party:
    """A client in a round: what its link costs, and the bytes that go down to it.

    Attributes
    ----------
    cost : RadioCost
    extra_bytes : int
        What it needs because it missed models.
    receives : bool
        Whether it is sent the broadcast, too.
    """

    cost: RadioCost
    extra_bytes: int = 0
    receives: bool = True


@dataclass
class Accounts:
    """What may be spent, and what was.

    Attributes
    ----------
    run : mapping of str to float
        What the whole run may spend, by the unit.
    given : DeviceBudgets
        What the settings give each device.
    stated : dict of str to dict
        What clients state that they may spend: the less of the two holds.
    spent : dict of str to float
        By the whole run.
    devices : dict of str to dict
        By each client, in the units of any device's budget.
    empty : dict of str to Empty
        Clients that left for want of it.
    relays : dict of str to float
        Joules that each relay said, the last time, that its hop had taken in the run.
    relays_j : float
        The part of the run's joules that went to those hops.
    """

    run: Amounts = field(default_factory=dict)
    given: DeviceBudgets = field(default_factory=DeviceBudgets)
    stated: dict[str, dict[str, float]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    devices: dict[str, dict[str, float]] = field(default_factory=dict)
    empty: dict[str, Empty] = field(default_factory=dict)
    relays: dict[str, float] = field(default_factory=dict)
    relays_j: float = 0.0

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON has it."""
        return {
            "stated": self.stated,
            "spent": self.spent,
            "devices": self.devices,
            "empty": [asdict(entry) for entry in self.empty.values()],
            "relays": self.relays,
            "relays_j": self.relays_j,
        }

    @classmethod
    def restored(
        cls, settings: Settings, state: Mapping[str, Any], energy_j: float = 0.0
    ) -> "Accounts":
        """Return the accounts of a run.

        Parameters
        ----------
        settings : Settings
        state : mapping
            What they were taken from; empty for a new run, and for one of an earlier version, which
            had a budget of joules alone.
        energy_j : float
            That such a run has spent.
        """
        energy = settings.energy
        spent = {JOULES: energy_j} if JOULES in energy.run_budget and energy_j else {}
        return cls(
            energy.run_budget,
            energy.device_budgets,
            dict(state.get("stated", {})),
            dict(state.get("spent", spent)),
            dict(state.get("devices", {})),
            {entry["name"]: Empty(**entry) for entry in state.get("empty", [])},
            dict(state.get("relays", {})),
            float(state.get("relays_j", 0.0)),
        )

    def limits(self, name: str) -> dict[str, float]:
        """Return what a device may spend in the run, by the unit; empty for any amount."""
        limits = self.given.of(name)
        for unit, amount in self.stated.get(name, {}).items():
            limits[unit] = min(amount, limits.get(unit, inf))
        return limits

    def left(self, name: str, unit: str) -> float:
        """Return what is left of a budget; of the run's where `name` is empty."""
        limits, spent = self._account(name)
        return limits[unit] - spent.get(unit, 0.0)

    def _account(self, name: str) -> tuple[Amounts, Mapping[str, float]]:
        if not name:
            return self.run, self.spent
        return self.limits(name), self.devices.get(name, {})

    def pays(self, name: str, cost: RadioCost, down: int, up: int) -> str:
        """Return which budget of a device does not pay for these bytes, and why; else nothing."""
        for unit, amount in self.limits(name).items():
            price = byte_price(cost, unit)
            least = price.down * down + price.up * up
            left = self.left(name, unit)
            if least > left + ROUNDING * amount:
                needed = written(least, unit, up=True)
                if left == amount:
                    why = f"does not pay for one round: at least {needed} are needed"
                else:
                    why = f"has {written(max(left, 0.0), unit)} left, and a round takes {needed}"
                return f"the budget of {name}, {written(amount, unit)}, {why}"
        return ""

    def most_up(self, name: str, cost: RadioCost, down: int) -> int | None:
        """Return how many bytes a device can send once it received so many; None for any."""
        most = []
        for unit in self.limits(name):
            price = byte_price(cost, unit)
            if price.up:
                most.append(max(0, floor((self.left(name, unit) - price.down * down) / price.up)))
        return min(most, default=None)

    def purses(
        self,
        parties: Mapping[str, Party],
        rounds: int,
        drawn: float,
        downlink_j_per_bit: float,
        catch_up_j: float,
    ) -> tuple[Purse, ...]:
        """Return all budgets as they stand before a round of these clients.

        Parameters
        ----------
        parties : mapping of str to Party
        rounds : int
            That are left, this one among them.
        drawn : float
            Share of them that a device is drawn for.
        downlink_j_per_bit, catch_up_j : float
            Joules of the whole run, those of the serving side among them.
        """
        return (
            *self._of_run(parties, rounds, 8 * downlink_j_per_bit, catch_up_j),
            *(
                self._of_device(name, unit, party, max(1.0, rounds * drawn))
                for name, party in parties.items()
                for unit in self.limits(name)
            ),
        )

    def _of_run(
        self, parties: Mapping[str, Party], rounds: int, down_j: float, catch_up_j: float
    ) -> Iterator[Purse]:
        for unit, amount in self.run.items():
            prices = {name: byte_price(party.cost, unit) for name, party in parties.items()}
            if unit == JOULES:
                down, fixed = down_j, catch_up_j
            else:
                down = sum(prices[name].down for name in parties if parties[name].receives)
                fixed = sum(prices[name].down * parties[name].extra_bytes for name in parties)
            yield Purse(
                f"energy.budget = {written(amount, unit)}",
                unit,
                self.left("", unit),
                rounds,
                {name: price.up for name, price in prices.items()},
                down,
                fixed,
            )

    def _of_device(self, name: str, unit: str, party: Party, rounds: float) -> Purse:
        price, amount = byte_price(party.cost, unit), self.limits(name)[unit]
        return Purse(
            f"the budget of {name}, {written(amount, unit)},",
            unit,
            self.left(name, unit),
            rounds,
            {name: price.up},
            price.down if party.receives else 0.0,
            price.down * party.extra_bytes,
            name,
        )

    def charge(
        self,
        costs: Mapping[str, RadioCost],
        down: Mapping[str, int],
        up: Mapping[str, int],
        energy_j: float,
    ) -> None:
        """Take note of what a round took.

        Parameters
        ----------
        costs : mapping of str to RadioCost
            Of the clients of the round.
        down, up : mapping of str to int
            Payload bytes that each was sent, and sent.
        energy_j : float
            Of the whole round.
        """
        for unit in self.run:
            moved = (
                down.get(name, 0) * byte_price(cost, unit).down
                + up.get(name, 0) * byte_price(cost, unit).up
                for name, cost in costs.items()
            )
            self._add(self.spent, unit, energy_j if unit == JOULES else sum(moved))
        for name, cost in costs.items():
            for unit in self.limits(name):
                price = byte_price(cost, unit)
                took = price.down * down.get(name, 0) + price.up * up.get(name, 0)
                self._add(self.devices.setdefault(name, {}), unit, took)

    def relay_took(self, name: str, so_far_j: float) -> float:
        """Return what a relay's hop took since it was last heard of."""
        took_j = max(0.0, so_far_j - self.relays.get(name, 0.0))
        self.relays[name] = so_far_j
        self.relays_j += took_j
        return took_j

    def _add(self, spent: dict[str, float], unit: str, amount: float) -> None:
        spent[unit] = spent.get(unit, 0) + (int(amount) if unit == BYTES else amount)

    def leaves(self, name: str, round_number: int, reason: str) -> None:
        """Take note of a device that is empty."""
        self.empty[name] = Empty(name, round_number, reason)

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of budgets; nothing where only the run's joules are one."""
        named = {name: self.limits(name) for name in sorted({*self.devices, *self.stated})}
        devices = {
            name: {
                unit: {"budget": amount, "spent": self.devices.get(name, {}).get(unit, 0)}
                for unit, amount in limits.items()
            }
            for name, limits in named.items()
            if limits
        }
        run = {
            unit: {"budget": amount, "spent": self.spent.get(unit, 0)}
            for unit, amount in self.run.items()
        }
        if not devices and set(run) <= {JOULES}:
            return {}
        empty = [asdict(entry) for entry in self.empty.values()]
        return {"budgets": {"run": run, "devices": devices, "empty": empty}}
