"""What a scheme is told, what it decides, and what it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Protocol

from fedaq.codec.model import Kind, ModelSpec
from fedaq.codec.payload import Bits, Steps, TensorCode
from fedaq.codec.quantizer import RAW_BITS, Floats, Spread, is_width
from fedaq.energy.cost import RadioCost
from fedaq.errors import UserError
from fedaq_server.accounts import Purse
from fedaq_server.privacy.release import Release

# Statistics that are coded over their range get so many bits.
LEAST_STATISTICS_BITS = 8


@dataclass(frozen=True)
class ClientState:
    """A client that takes part in the round, as schemes see it.

    Attributes
    ----------
    name : str
    weight : float
        ``p_i``, its share of the training examples of the round, 0 to 1.
    radio : RadioCost
        Joules per bit of this round.
    ranges : tuple of Spread, optional
        Ranges of its last update per tensor, None before its first.
    most_price : float
        Of a relay: the price of a joule above which noise drowns its clients' updates.
    reports : bool
        Whether its statistics count in this round (`fedaq_server.rounds.turns`).
    """

    name: str
    weight: float
    radio: RadioCost
    ranges: tuple[Spread, ...] | None
    most_price: float = inf
    reports: bool = True


@dataclass(frozen=True)
class RoundState:
    """What is known when a round begins.

    Attributes
    ----------
    round, rounds : int
        This round, from 1, and the last.
    spec : ModelSpec
        Names, shapes and sizes of the tensors.
    downlink_ranges : tuple of Spread
        Of what goes down, the model or a difference, per tensor.
    clients : mapping of str to ClientState
        By name, in the order of the names.
    downlink_j_per_bit : float
        Joules to bring one bit to all of them.
    first_ranges : tuple of Spread
        Of the weights with which the run began.
    downlink_samples : tuple of float32 arrays
        Some values of each tensor that goes down, evenly spread over it.
    differences : bool
        Whether a difference goes down, rounded to the nearest codes.
    catch_up_j : float
        Joules that go to clients which missed models, whatever the bits of this round, and those
        that this round and later ones leave to the hops of relays.
    relays_j : float
        The part of it that is for relays.
    absent_j_per_bit : float
        Joules to bring one bit to the clients that are not drawn this time, one by one: they need
        what goes down now when they come back.
    drawn : float
        The share of the clients that a round draws.
    purses : tuple of Purse
        The budgets of the run and of its devices.
    total_weight : int
        Of which each client's `weight` is a share.
    share : float
        Sum of the clients' weights: below 1 behind a relay, whose clients are not all of the run's.
    release : Release, optional
        Of a round whose sum is private: its grid is the one of all updates.
    """

    round: int
    rounds: int
    spec: ModelSpec
    downlink_ranges: tuple[Spread, ...]
    clients: Mapping[str, ClientState]
    downlink_j_per_bit: float
    first_ranges: tuple[Spread, ...]
    downlink_samples: tuple[Floats, ...] = ()
    differences: bool = False
    catch_up_j: float = 0.0
    purses: tuple[Purse, ...] = ()
    total_weight: int = 1
    share: float = 1.0
    relays_j: float = 0.0
    release: Release | None = None
    absent_j_per_bit: float = 0.0
    drawn: float = 1.0

    @cached_property
    def squared_weights(self) -> float:
        """``sum_i p_i**2``: the share of independent noise that is left in the mean update.

        Behind a relay, the sum over all clients of the run if those of other relays are like these.
        """
        return sum(client.weight**2 for client in self.clients.values()) / self.share

    @cached_property
    def squared_reports(self) -> float:
        """As `squared_weights`, of statistics: of the clients that report them."""
        weights = [client.weight for client in self.clients.values() if client.reports]
        return self.share * sum(weight**2 for weight in weights) / (sum(weights) ** 2 or 1.0)


@dataclass(frozen=True)
class Grant:
    """How a payload is to be coded.

    Attributes
    ----------
    bits : tuple of int
        Per tensor; 0 for one that is not sent this time.
    steps : tuple of float
        Quantization steps per tensor, which decide the bits; 0, or empty: the step that
        spans the tensor's range with `bits`.
    limit_bytes : int, optional
        Largest payload; with a limit, every tensor has a step.
    """

    bits: Bits
    steps: Steps = ()
    limit_bytes: int | None = None


@dataclass(frozen=True)
class Plan:
    """The decisions with which a round begins.

    Attributes
    ----------
    downlink : Grant
        How the server codes what goes down.
    uplink_bits : mapping of str to tuple of int
        Provisional, per client and tensor; the grants decide.
    price : float
        The energy price lambda, 0 where the scheme has none.
    clip : bool
        Whether ranges are cut at ``b + 2`` standard deviations (`Spread.clipped`).
    forecast_j : float, optional
        Joules that this round and all later ones are expected to take; None where the scheme
        does not look ahead.
    least_up_bytes : mapping of str to int
        What an update takes at the least to be worth it, of clients with a budget of their own:
        one that cannot pay for it is empty. Headers, where nothing is said.
    alone_bytes : mapping of str to int
        What each client is sent at the most besides what goes down, for it alone.
    grid : tuple of TensorCode
        Per tensor: how all updates of the round are coded; empty where `grant` says it of each.
    one_in : int
        Of the values of every update, one in so many is sent (`fedaq.codec.subset`).
    """

    downlink: Grant
    uplink_bits: Mapping[str, Bits]
    price: float = 0.0
    clip: bool = False
    forecast_j: float | None = None
    least_up_bytes: Mapping[str, int] = field(default_factory=dict)
    alone_bytes: Mapping[str, int] = field(default_factory=dict)
    grid: tuple[TensorCode, ...] = ()
    one_in: int = 1


@dataclass(frozen=True)
class Outcome:
    """What a round showed.

    Attributes
    ----------
    round : int
    test_accuracy, test_loss : float
        Of the new model; the accuracy is NaN of a task that has none.
    train_loss : float
        Weighted mean over the clients.
    update_ranges : mapping of str to tuple of Spread
        Per client whose update counted, per tensor.
    energy_j : float
        Spent in this round.
    uplink_bytes : mapping of str to int
        Payload bytes of each update that counted.
    test_metrics : mapping of str to float
        What else the task's test gave, by name.
    downlink_bytes : int, optional
        Payload bytes of the broadcast; None where nobody knows.
    widths : tuple of float
        Per tensor, the weighted mean of the updates' root mean squares; empty where updates have
        no common grid, or none arrived.
    mean_power : float, optional
        Sum of the squares of the mean update, of what is coded, as it was decoded; None where
        nobody knows.
    """

    round: int
    test_accuracy: float
    test_loss: float
    train_loss: float
    update_ranges: Mapping[str, tuple[Spread, ...]]
    energy_j: float
    uplink_bytes: Mapping[str, int]
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    downlink_bytes: int | None = None
    widths: tuple[float, ...] = ()
    mean_power: float | None = None


class Scheme(Protocol):
    """One way to choose bit-lengths.

    A run can be resumed if its scheme is a dataclass: its fields, but for those whose name begins
    with an underscore, are its state between two rounds.

    `plan` and `learn` are called from a thread, never two calls at a time: they may take long.
    `grant` is called on the event loop, between the two, and holds up everything else meanwhile.
    """

    def plan(self, state: RoundState) -> Plan | None:
        """Choose how the downlink of a round is coded.

        Parameters
        ----------
        state : RoundState

        Returns
        -------
        Plan or None
            None ends the run before this round.
        """

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Choose how the update of one client is coded.

        Clients are asked for in the order in which they finish, so the answer must depend on these
        arguments alone.

        Parameters
        ----------
        state : RoundState
        plan : Plan
            What `plan` returned for this round.
        client : ClientState
        ranges : tuple of Spread
            Of its update, per tensor, in the unit of the weights.

        Returns
        -------
        Grant
            A width that cannot be ends the run with a `UserError` that names it.
        """

    def learn(self, outcome: Outcome) -> None:
        """Take note of a finished round, before the next one is planned."""


def granted_down(grant: Grant, state: RoundState) -> Grant:
    """Return what a scheme chose for what goes down, if it is possible.

    Statistics are sent raw where the whole model goes down: only a change has a unit.

    Raises
    ------
    UserError
        If a scheme, perhaps the user's own, chose a width the wire does not know.
    """
    chosen = _checked(grant, state.downlink_ranges, state.spec)
    if state.differences or not (state.spec.has_statistics and chosen.bits[-1]):
        return chosen
    return replace(
        chosen, bits=(*chosen.bits[:-1], RAW_BITS), steps=chosen.steps and (*chosen.steps[:-1], 0.0)
    )


def granted_up(grant: Grant, ranges: tuple[Spread, ...], spec: ModelSpec) -> Grant:
    """Return what a scheme chose for an update, if it is possible.

    Raises
    ------
    UserError
        As `granted_down`.
    """
    chosen = _checked(grant, ranges, spec)
    ours = (t.kind == Kind.SERVER for t in spec.tensors)
    bits = tuple(0 if o else b for o, b in zip(ours, chosen.bits, strict=True))
    return replace(chosen, bits=bits)


def _checked(grant: Grant, ranges: tuple[Spread, ...], spec: ModelSpec) -> Grant:
    """Return what a scheme chose, if it is possible; a tensor of zeros is not sent.

    Statistics that are coded over their range get enough bits for it.
    """
    bits, tensors = grant.bits, len(spec.tensors)
    if len(bits) != tensors or not all(b == 0 or is_width(b) for b in bits):
        raise UserError(
            f"the scheme chose bits {bits}; one width per tensor is needed, each 1 to 16, or "
            f"{RAW_BITS} for raw, or 0 for nothing"
        )
    if len(grant.steps) not in (0, tensors) or not all(0 <= s < inf for s in grant.steps):
        raise UserError(
            f"the scheme chose quantization steps {grant.steps}; one per tensor is needed, "
            "finite and not negative, or none at all"
        )
    sent = tuple(0 if r.is_zero else int(b) for b, r in zip(bits, ranges, strict=True))
    if spec.has_statistics and sent[-1] and not any(grant.steps[-1:]):
        sent = (*sent[:-1], max(sent[-1], LEAST_STATISTICS_BITS))
    return replace(grant, bits=sent)
