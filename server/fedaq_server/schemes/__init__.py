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
from fedaq.quantizer import RAW_BITS, Range, is_width
from fedaq.settings import Settings
from fedaq.tasks import load_attribute

BUILT_IN = {
    "fp32": "fedaq_server.schemes.fixed:fp32",
    "fixed": "fedaq_server.schemes.fixed:fixed",
    "fedaq": "fedaq_server.schemes.fedaq:fedaq",
}


@dataclass(frozen=True)
class ClientState:
    """A client that takes part in the round, as schemes see it.

    Attributes
    ----------
    name : str
    weight : float
        ``p_i``, its share of the training examples of the round.
    radio : RadioCost
    ranges : tuple of Range, optional
        Ranges of its last update per tensor, None before its first.
    """

    name: str
    weight: float
    radio: RadioCost
    ranges: tuple[Range, ...] | None


@dataclass(frozen=True)
class RoundState:
    """What is known when a round begins.

    Attributes
    ----------
    round, rounds : int
        This round, from 1, and the last.
    spec : ModelSpec
    weight_ranges : tuple of Range
        Of the model that goes down, per tensor.
    clients : mapping of str to ClientState
        By name, in the order of the names.
    downlink_j_per_bit : float
        Joules to bring one bit of the model to all of them.
    """

    round: int
    rounds: int
    spec: ModelSpec
    weight_ranges: tuple[Range, ...]
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
    """

    downlink_bits: Bits
    uplink_bits: Mapping[str, Bits]
    price: float = 0.0


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
    update_ranges : mapping of str to tuple of Range
        Per client whose update counted, per tensor.
    energy_j : float
        Spent in this round.
    """

    round: int
    test_accuracy: float
    test_loss: float
    train_loss: float
    update_ranges: Mapping[str, tuple[Range, ...]]
    energy_j: float


class Scheme(Protocol):
    """One way to choose bit-lengths."""

    def plan(self, state: RoundState) -> Plan:
        """Choose the downlink bits of a round."""

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Range, ...]
    ) -> Bits:
        """Choose the uplink bits of one client from the ranges of its update."""

    def learn(self, outcome: Outcome) -> None:
        """Take note of a finished round."""


def load_scheme(settings: Settings) -> Scheme:
    """Return the scheme that the settings name.

    Raises
    ------
    UserError
        If there is no such scheme.
    """
    name = settings.scheme
    target = BUILT_IN.get(name, name)
    if ":" not in target:
        raise UserError(
            f"scheme {name!r} is unknown; built in: {', '.join(BUILT_IN)}; "
            "your own: --scheme package.module:attribute"
        )
    scheme: Scheme = load_attribute(target, "scheme")(settings)
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
