"""How fine every transfer of a Flower run is coded, and what the run has spent.

The scheme is `fedaq`, as in our own rounds. Two things differ. A node is told its step together
with the model, before there is an update to measure: the scheme is asked with the ranges of the
node's last one. And a new model goes down where the strategy first sends it, mostly for an
evaluation; the round whose training begins with it pays for it. The evaluation of the last model
counts as one more round.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import nan

import numpy as np

from fedaq.codec import payload
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Grid, Spread
from fedaq.energy.cost import RadioCost, downlink_j_per_bit
from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq_server.flower.reference import Reference
from fedaq_server.schemes.expected import FIRST_UPDATE
from fedaq_server.schemes.fedaq import fedaq
from fedaq_server.schemes.scheme import (
    ClientState,
    Grant,
    Outcome,
    Plan,
    RoundState,
    granted_down,
    granted_up,
)
from fedaq_server.schemes.spending import known_spreads
from fedaq_server.schemes.spreads import samples_of

# Of radios that are drawn at random.
SEED = 1
# What a message takes besides headers and codes: digests, numbers, a grant; and per tensor:
# spreads, or that it is left out.
MESSAGE_BYTES, TENSOR_BYTES = 128, 5
# A budget in bytes is one in joules, at one joule a byte.
BYTE_J_PER_BIT = 1 / 8

# Without a budget. A grant goes out with the task, before there is an update to judge by.
STEPS = {"uplink_resolution": 0.1, "downlink_resolution": 0.03}


def settings_of(budget_j: float | None, budget_bytes: int | None, radio: str) -> Settings:
    """Return the settings of a run.

    Raises
    ------
    UserError
        If there are two budgets, or one cannot be.
    """
    if budget_j is not None and budget_bytes is not None:
        raise UserError("fedaq.flower: give budget_j or budget_bytes, not both")
    costs: dict[str, object] = {"budget_j": budget_j, "radio": radio}
    if budget_bytes is not None:
        costs = {
            "budget_j": budget_bytes,
            "uplink": {"j_per_bit": BYTE_J_PER_BIT},
            "downlink": {"j_per_bit": BYTE_J_PER_BIT},
            "receive": {"j_per_bit": 0.0},
        }
    try:
        return Settings.model_validate({"scheme": "fedaq", "energy": costs, "fedaq": STEPS})
    except ValueError as error:
        [first, *_] = error.errors()  # type: ignore[attr-defined]
        name = "budget_bytes" if budget_bytes is not None else str(first["loc"][-1])
        raise UserError(f"fedaq.flower: {name}: {first['msg']}") from None


@dataclass
class Node:
    """What the server knows of a node.

    Attributes
    ----------
    holds : bytes
        Digest of the model that it showed to hold; empty for nothing.
    answered : bool
        Whether it ever answered as only the mod does.
    examples : float
        Weight of its last update, 0 before the first.
    ranges : tuple of Spread, optional
        Of its last update.
    """

    holds: bytes = b""
    answered: bool = False
    examples: float = 0.0
    ranges: tuple[Spread, ...] | None = None


@dataclass
class _Spending:
    """What was sent since the scheme last learned."""

    energy_j: float = 0.0
    catch_up_j: float = 0.0
    receivers: set[int] = field(default_factory=set)
    update_ranges: dict[str, tuple[Spread, ...]] = field(default_factory=dict)
    uplink_bytes: dict[str, int] = field(default_factory=dict)
    downlink_bytes: int | None = None


class Plans:
    """The scheme of one run, and what it is told.

    Parameters
    ----------
    settings : Settings
    rounds : int
        Of the run.
    reference : Reference
        Its model, which is new.

    Attributes
    ----------
    nodes : dict of int to Node
    evaluates : bool
        Whether models are sent to be evaluated, as far as is known.
    """

    def __init__(self, settings: Settings, rounds: int, reference: Reference) -> None:
        self.nodes: dict[int, Node] = {}
        self.evaluates = True
        self._spent_j = 0.0
        self._settings, self._rounds, self._reference = settings, rounds, reference
        self._scheme = fedaq(settings)
        spec = reference.layout.spec
        self._first_ranges = payload.tensor_spreads(spec, reference.exact.__getitem__)
        # What a run begins with goes down whatever the scheme says: to it, nothing is new.
        self._news = (Spread(0.0, 0.0, 0.0, 0.0, 0.0),) * len(spec.tensors)
        self._samples = samples_of(spec, np.zeros_like(reference.exact).__getitem__)
        self._is_sent = False
        self._spending = _Spending()
        self._trained = 0
        self._participants: list[int] = []
        self._state: RoundState | None = None
        self._plan: Plan | None = None

    @property
    def spent_j(self) -> float:
        """What transfers took so far: joules, or bytes if those are what the budget is of."""
        return self._spent_j + self._spending.energy_j

    def node(self, node_id: int) -> Node:
        """Return what is known of a node."""
        return self.nodes.setdefault(node_id, Node())

    def see_new_model(self) -> None:
        """Measure what the reference's new model has gained, before it is planned for."""
        spec, gain = self._reference.layout.spec, self._reference.gain()
        self._news = payload.tensor_spreads(spec, gain.__getitem__)
        self._samples = samples_of(spec, gain.__getitem__)
        self._is_sent = False

    def prepare_training(self, number: int, node_ids: list[int]) -> bool:
        """Plan a round and advance the reference; tell whether the budget pays for it.

        Raises
        ------
        UserError
            If it does not even pay for the first.
        """
        self._settle()
        self._trained, self._participants = number, node_ids
        return self._prepare(number, node_ids, node_ids)

    def prepare_evaluation(self, node_ids: list[int]) -> bool:
        """Advance the reference as the next round's plan says; tell whether that is paid for."""
        self._settle()
        return self._prepare(self._trained + 1, self._participants or node_ids, node_ids)

    def grant(self, node_id: int) -> Grant:
        """Return how the update of a node of this round is to be coded."""
        state, plan = self._state, self._plan
        assert state is not None
        assert plan is not None
        client = state.clients[str(node_id)]
        [expected] = known_spreads(replace(state, clients={client.name: client}), FIRST_UPDATE)
        chosen = self._scheme.grant(state, plan, client, expected)
        return granted_up(chosen, expected, state.spec)

    def sent(self, node_id: int, newest_bytes: int, other_bytes: int) -> None:
        """Take note of what went down to a node: the newest difference, and all else."""
        radio = self._radio(node_id)
        joules = 8 * downlink_j_per_bit([radio], broadcast=False)
        spending = self._spending
        spending.energy_j += joules * (newest_bytes + other_bytes)
        spending.catch_up_j += joules * other_bytes
        if newest_bytes:
            spending.receivers.add(node_id)

    def received(self, node_id: int, size: int) -> None:
        """Take note of what came up from a node, whether it counts or not."""
        self._spending.energy_j += 8 * self._radio(node_id).uplink_j_per_bit * size

    def updated(
        self, node_id: int, update: Payload, spreads: Floats, examples: float, size: int
    ) -> None:
        """Take note of an update that counts.

        Parameters
        ----------
        spreads : float32, shape (tensors, 2)
            Root mean square and mean magnitude of every tensor.
        examples : float
            Its weight.
        size : int
            Bytes of headers and codes.
        """
        node, name = self.node(node_id), str(node_id)
        node.examples = examples
        node.ranges = tuple(
            _spread(code.grid, *row)
            for code, row in zip(update.codes, spreads.tolist(), strict=True)
        )
        self._spending.update_ranges[name] = node.ranges
        self._spending.uplink_bytes[name] = size

    def _settle(self) -> None:
        """Let the scheme learn from the round that is over, if there is one."""
        spending = self._spending
        if not self._trained or self._plan is None or not spending.energy_j:
            return
        self._spent_j += spending.energy_j
        self._scheme.learn(
            Outcome(
                round=self._trained,
                test_accuracy=nan,
                test_loss=nan,
                train_loss=nan,
                update_ranges=spending.update_ranges,
                energy_j=spending.energy_j,
                uplink_bytes=spending.uplink_bytes,
                downlink_bytes=spending.downlink_bytes,
            )
        )
        self._spending = _Spending()

    def _prepare(self, number: int, training: list[int], receiving: list[int]) -> bool:
        self._state = self._state_of(number, training, receiving)
        self._spending.downlink_bytes = None
        try:
            self._plan = self._scheme.plan(self._state)
        except UserError as error:
            raise UserError(f"fedaq.flower: {self._in_its_unit(str(error))}") from None
        if self._plan is None:
            return False
        if not self._is_sent:
            grant = granted_down(self._plan.downlink, self._state)
            # Of no plan but this one, the scheme learns how long codes are.
            sent = self._reference.advance(grant, self._news, number)
            self._spending.downlink_bytes, self._is_sent = sent, True
        return True

    def _state_of(self, number: int, training: list[int], receiving: list[int]) -> RoundState:
        spec, reference = self._reference.layout.spec, self._reference
        newest = reference.newest.size if self._is_sent else 0
        receivers, catch_up_j = set(self._spending.receivers), self._spending.catch_up_j
        for node_id in receiving:
            way = reference.way(self.node(node_id).holds)
            lacks = sum(step.size for step in way)
            if way and self._is_sent and way[-1] is reference.newest and way[-1].base:
                lacks -= newest
            if not self._is_sent or (way and way[-1] is reference.newest):
                receivers.add(node_id)
            joules = downlink_j_per_bit([self._radio(node_id)], broadcast=False)
            catch_up_j += 8 * joules * (lacks + self._extra_bytes(spec))
        for node_id in training:
            catch_up_j += 8 * self._radio(node_id).uplink_j_per_bit * self._extra_bytes(spec)
        return RoundState(
            round=number,
            rounds=self._rounds + self.evaluates,
            spec=spec,
            downlink_ranges=self._news,
            clients=self._clients(training),
            downlink_j_per_bit=downlink_j_per_bit(
                [self._radio(node_id) for node_id in sorted(receivers)], broadcast=False
            ),
            first_ranges=self._first_ranges,
            downlink_samples=self._samples,
            differences=True,
            catch_up_j=catch_up_j,
        )

    def _clients(self, node_ids: Iterable[int]) -> Mapping[str, ClientState]:
        nodes = {node_id: self.node(node_id) for node_id in sorted(node_ids)}
        known = [node.examples for node in nodes.values() if node.examples > 0]
        usual = sum(known) / len(known) if known else 1.0
        examples = {node_id: node.examples or usual for node_id, node in nodes.items()}
        total = sum(examples.values())
        return {
            str(node_id): ClientState(
                str(node_id), examples[node_id] / total, self._radio(node_id), node.ranges
            )
            for node_id, node in nodes.items()
        }

    def _radio(self, node_id: int) -> RadioCost:
        return self._settings.energy.radio_cost(SEED, str(node_id), max(self._trained, 1))

    def _extra_bytes(self, spec: ModelSpec) -> int:
        return MESSAGE_BYTES + TENSOR_BYTES * len(spec.tensors) + self._reference.layout.exact_bytes

    def _in_its_unit(self, sentence: str) -> str:
        if self._settings.energy.uplink.j_per_bit == BYTE_J_PER_BIT:
            sentence = re.sub(r" J\b", " bytes", sentence)
            return sentence.replace("energy.budget_j", "budget_bytes")
        return sentence.replace("energy.budget_j", "budget_j")


def _spread(grid: Grid | None, rms: float, magnitude: float) -> Spread:
    """Return a spread around zero: of an update, more is not told."""
    lo, hi = (grid.lo, grid.hi) if grid else (-rms, rms)
    return Spread(lo, hi, 0.0, rms, magnitude)
