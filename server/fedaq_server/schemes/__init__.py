"""Who decides how many bits each transfer gets.

A scheme plans the downlink of a round from the weights and grants each client its
uplink bits from the ranges the client reports. A grant depends only on the plan and
on that client's own report, so no client waits for another and the order of arrival
changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fedaq.energy import RadioCost
from fedaq.errors import UserError
from fedaq.model import ModelSpec
from fedaq.payload import Bits
from fedaq.quantizer import RAW_BITS, Spread, is_width
from fedaq.settings import Settings
from fedaq.tasks import load_attribute

BUILT_IN = {
    "fp32": "fedaq_server.schemes.fixed:fp32",
    "fixed": "fedaq_server.schemes.fixed:fixed",
    "adaquantfl": "fedaq_server.schemes.adaquantfl:adaquantfl",
    "dadaquant": "fedaq_server.schemes.dadaquant:dadaquant",
    "feddq": "fedaq_server.schemes.feddq:feddq",
    "fedaq": "fedaq_server.schemes.fedaq:fedaq",
}

_PARTS = ("plan", "grant", "learn")


@dataclass(frozen=True)
class ClientState:
    """A client that takes part in the round, as schemes see it.

    Attributes
    ----------
    name : str
    weight : float
        ``p_i``, its share of the training examples of the round.
    radio : RadioCost
    ranges : tuple of Spread, optional
        Ranges of its last update per tensor, None before its first.
    """

    name: str
    weight: float
    radio: RadioCost
    ranges: tuple[Spread, ...] | None


@dataclass(frozen=True)
class RoundState:
    """What is known when a round begins.

    Attributes
    ----------
    round, rounds : int
        This round, from 1, and the last.
    spec : ModelSpec
    weight_ranges : tuple of Spread
        Of the model that goes down, per tensor.
    clients : mapping of str to ClientState
        By name, in the order of the names.
    downlink_j_per_bit : float
        Joules to bring one bit of the model to all of them.
    """

    round: int
    rounds: int
    spec: ModelSpec
    weight_ranges: tuple[Spread, ...]
    clients: Mapping[str, ClientState]
    downlink_j_per_bit: float


@dataclass(frozen=True)
class Plan:
    """The decisions with which a round begins.

    Attributes
    ----------
    downlink_bits : tuple of int
        Per tensor.
    uplink_bits : mapping of str to tuple of int
        Provisional, per client and tensor; the grants decide.
    price : float
        The energy price lambda, 0 where the scheme has none.
    clip : bool
        Whether ranges are cut at ``b + 2`` standard deviations (`Spread.clipped`).
    """

    downlink_bits: Bits
    uplink_bits: Mapping[str, Bits]
    price: float = 0.0
    clip: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a round showed.

    Attributes
    ----------
    round : int
    test_accuracy, test_loss : float
        Of the new model.
    train_loss : float
        Weighted mean over the clients.
    update_ranges : mapping of str to tuple of Spread
        Per client whose update counted, per tensor.
    energy_j : float
        Spent in this round.
    """

    round: int
    test_accuracy: float
    test_loss: float
    train_loss: float
    update_ranges: Mapping[str, tuple[Spread, ...]]
    energy_j: float


class Scheme(Protocol):
    """One way to choose bit-lengths."""

    def plan(self, state: RoundState) -> Plan | None:
        """Choose the downlink bits of a round; None ends the run before it."""

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Bits:
        """Choose the uplink bits of one client from the ranges of its update."""

    def learn(self, outcome: Outcome) -> None:
        """Take note of a finished round."""


def load_scheme(settings: Settings) -> Scheme:
    """Return the scheme that the settings name.

    Raises
    ------
    UserError
        If there is no such scheme, or what is named does not build one.
    """
    name = settings.scheme
    target = BUILT_IN.get(name, name)
    if ":" not in target:
        raise UserError(
            f"scheme {name!r} is unknown; built in: {', '.join(BUILT_IN)}; "
            "your own: --scheme package.module:attribute"
        )
    build = load_attribute(target, "scheme")
    if not callable(build):
        raise UserError(
            f"scheme {name!r} is a {type(build).__name__}; "
            "a function that takes the settings and returns the scheme is needed"
        )
    scheme: Scheme = build(settings)
    missing = [part for part in _PARTS if not callable(getattr(scheme, part, None))]
    if missing:
        raise UserError(
            f"scheme {name!r} returned a {type(scheme).__name__} without {', '.join(missing)}; "
            f"a scheme has {', '.join(_PARTS)}"
        )
    return scheme


def checked_bits(bits: Bits, spec: ModelSpec) -> Bits:
    """Return the bits a scheme chose, if they are possible.

    Raises
    ------
    UserError
        If a scheme, perhaps the user's own, chose a width the wire does not know.
    """
    if len(bits) != len(spec.tensors) or not all(is_width(b) for b in bits):
        raise UserError(
            f"the scheme chose bits {bits}; one width per tensor is needed, each 1 to 16 or "
            f"{RAW_BITS} for raw"
        )
    return tuple(int(b) for b in bits)
