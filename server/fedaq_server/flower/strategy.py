"""A strategy around the user's own, which goes on seeing plain arrays."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from google.protobuf.message import DecodeError

from fedaq.errors import FedaqError, UserError, printable
from fedaq.flower.payloads import FIELD, LACKING, RECORD
from fedaq.v1 import flower_pb2 as pb
from fedaq_server.flower import updates
from fedaq_server.flower.plans import Plans, settings_of
from fedaq_server.flower.reference import Reference

# Flower's, so that what is said stands where the user looks.
log = logging.getLogger("flwr")

MOD = "ClientApp(mods=[coded()])"
HOOKS = "configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate"


@dataclass(frozen=True)
class _Told:
    """What a node was told in a message that is under way.

    Attributes
    ----------
    digest : bytes
        Of the model that it holds then.
    record : str
        Name of the record that has the model.
    grant : FlowerGrant, optional
        How its update is to be coded.
    """

    digest: bytes
    record: str
    grant: pb.FlowerGrant | None


class Coded(Strategy):  # type: ignore[misc]
    """A strategy whose messages carry coded differences, in both directions.

    The nodes' app has the mod `fedaq.flower.coded`. The wrapped strategy chooses nodes and makes
    the next model as ever: it is given, and gives, plain arrays. Floating-point arrays are coded,
    as float32; integers arrive as they were sent.

    Parameters
    ----------
    strategy : Strategy
        FedAvg, FedProx, FedAdam or the user's own.
    budget_j : float, optional
        Joules that the transfers of a run may take, at what `radio` takes for a bit.
    budget_bytes : int, optional
        Instead: bytes that they may take, without Flower's own of each message.
    radio : str
        As the setting ``energy.radio``: a preset's name (``fedaq radio``), constant or shannon.

    Without a budget, updates are coded in steps of 0.1 and models in steps of 0.03, as by the
    scheme ``fedaq``. With one, the scheme chooses steps that a round can pay for; where it can
    pay for no more, no messages are sent in the rounds that are left.

    Raises
    ------
    UserError
        If there are two budgets, or one cannot be.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        budget_j: float | None = None,
        budget_bytes: int | None = None,
        radio: str = "constant",
    ) -> None:
        super().__init__()
        if not isinstance(strategy, Strategy):
            raise UserError(
                f"fedaq.flower: Coded takes a strategy of flwr.serverapp.strategy, and was given "
                f"a {type(strategy).__name__}"
            )
        self.strategy = strategy
        self._settings = settings_of(budget_j, budget_bytes, radio)
        self._hooks = {name: getattr(strategy, name) for name in HOOKS}
        self._rounds: int | None = None
        self._reference: Reference | None = None
        self._plans: Plans | None = None
        self._told: dict[int, _Told] = {}

    def start(
        self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, **options: Any
    ) -> Result:
        """Run the wrapped strategy's own `start`, with coded messages.

        Raises
        ------
        UserError
            If the budget does not pay for one round, or a model is not finite.
        """
        self._reference, self._plans, self._told = None, None, {}
        self._rounds = num_rounds
        with self._in_its_place():
            return self.strategy.start(grid, initial_arrays, num_rounds, **options)

    def summary(self) -> None:
        """Log the wrapped strategy's summary, and the budget."""
        self.strategy.summary()
        log.info("\t└──> Coded by fedaq, %s", self._budget_named())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the wrapped strategy choose, and code what its messages carry."""
        messages = list(self._hooks["configure_train"](server_round, arrays, config, grid))
        return self._coded(messages, arrays, server_round)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Decode the replies for the wrapped strategy; one that is broken is one that failed."""
        plain = [self._train_reply(reply) for reply in replies]
        aggregated: tuple[ArrayRecord | None, MetricRecord | None] = self._hooks["aggregate_train"](
            server_round, plain
        )
        return aggregated

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the wrapped strategy choose, and code what its messages carry."""
        messages = list(self._hooks["configure_evaluate"](server_round, arrays, config, grid))
        if self._plans is not None:
            self._plans.evaluates = bool(messages)
        return self._coded(messages, arrays, None)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Hand the replies to the wrapped strategy."""
        replies = list(replies)
        for reply in replies:
            if reply.metadata.src_node_id in self._told:
                self._note_answer(reply)
        metrics: MetricRecord | None = self._hooks["aggregate_evaluate"](server_round, replies)
        return metrics

    # ---- Down --------------------------------------------------------------------

    def _coded(
        self, messages: list[Message], arrays: ArrayRecord, train_round: int | None
    ) -> list[Message]:
        """Return messages with differences in the place of the model; none if they cost too much.

        Those without the model are sent as they are.
        """
        self._told = {}
        records = [_record_of(message, arrays) for message in messages]
        if not any(records):
            return messages
        plans = self._see(arrays)
        coded = [m for m, name in zip(messages, records, strict=True) if name]
        node_ids = sorted({message.metadata.dst_node_id for message in coded})
        if train_round is None:
            is_paid = plans.prepare_evaluation(node_ids)
        else:
            is_paid = plans.prepare_training(train_round, node_ids)
        if not is_paid:
            log.info("fedaq: %s pays for no further messages", self._budget_named())
            return []
        return [
            message if name is None else self._down(message, name, train_round)
            for message, name in zip(messages, records, strict=True)
        ]

    def _see(self, arrays: ArrayRecord) -> Plans:
        """Take the strategy's model, and begin anew if it has other arrays than before."""
        values = {name: array.numpy() for name, array in arrays.items()}
        if self._plans is None or self._reference is None or not self._reference.takes(values):
            rounds = self._rounds
            if rounds is None and self._settings.energy.budget_j is not None:
                raise UserError("fedaq.flower: a Coded with a budget must be the one that starts")
            self._reference = Reference(values)
            self._plans = Plans(self._settings, rounds or 1, self._reference)
        elif self._reference.note(values):
            self._plans.see_new_model()
        return self._plans

    def _down(self, message: Message, record: str, train_round: int | None) -> Message:
        reference, plans = self._known()
        node_id = message.metadata.dst_node_id
        way = reference.way(plans.node(node_id).holds)
        down = pb.FlowerDown(record=record, holds=reference.digest)
        down.payloads.extend(step.message for step in way)
        grant = None
        if train_round is not None:
            grant = updates.to_message(plans.grant(node_id), train_round)
            down.grant.CopyFrom(grant)
        self._told[node_id] = _Told(reference.digest, record, grant)
        data = down.SerializeToString()
        newest = way[-1].size if way and way[-1].base else 0
        plans.sent(node_id, newest, len(data) - newest)
        others = {name: value for name, value in message.content.items() if name != record}
        coded = copy(message)
        coded.content = RecordDict({RECORD: ConfigRecord({FIELD: data}), **others})
        return coded

    # ---- Up ----------------------------------------------------------------------

    def _train_reply(self, reply: Message) -> Message:
        node_id = reply.metadata.src_node_id
        if node_id not in self._told:
            return reply
        if reply.has_error():
            self._note_answer(reply)
            return reply
        try:
            return self._decoded(reply, node_id)
        except (FedaqError, ValueError, DecodeError) as error:
            reason = f"fedaq: the reply of node {node_id} is dropped: {printable(str(error))}"
            log.warning(reason)
            code = ErrorCode.MOD_FAILED_PRECONDITION
            return Message(error=Error(code, reason), metadata=reply.metadata)

    def _decoded(self, reply: Message, node_id: int) -> Message:
        reference, plans = self._known()
        data = _bytes_in(reply.content)
        plans.received(node_id, len(data))
        up = pb.FlowerUp.FromString(data)
        told = self._told[node_id]
        if up.holds != told.digest or told.grant is None:
            raise ValueError("it was made with another model than the one that was sent")
        self._note_answer(reply)
        others = {name: value for name, value in reply.content.items() if name != RECORD}
        if up.HasField("payload"):
            record = up.record or told.record
            if record in others:
                raise ValueError(f"it has the record {record!r} twice")
            update = updates.read(reference, up, told.grant, node_id)
            examples = _examples(reply, self.strategy)
            size = up.payload.ByteSize()
            plans.updated(node_id, update.header, update.spreads, examples, size)
            values = {name: Array(np.asarray(a)) for name, a in update.arrays.items()}
            others = {record: ArrayRecord(values), **others}
        plain = copy(reply)
        plain.content = RecordDict(others)
        return plain

    def _note_answer(self, reply: Message) -> None:
        """Learn from an answer what the node holds."""
        _, plans = self._known()
        node_id = reply.metadata.src_node_id
        node = plans.node(node_id)
        if not reply.has_error():
            node.holds, node.answered = self._told[node_id].digest, True
            return
        reason = reply.error.reason or ""
        if reason.startswith(LACKING):
            log.info("fedaq: node %d lacks the model; it is sent with the next message", node_id)
            node.holds, node.answered = b"", True
        elif not node.answered:
            log.warning(
                "fedaq: node %d failed, and never showed that its app has the mod; without it, "
                "the app finds no arrays: %s",
                node_id,
                MOD,
            )

    # ---- The rest ----------------------------------------------------------------

    def _known(self) -> tuple[Reference, Plans]:
        assert self._reference is not None
        assert self._plans is not None
        return self._reference, self._plans

    @contextmanager
    def _in_its_place(self) -> Iterator[None]:
        """Let the wrapped strategy's own calls of its hooks reach these ones."""
        for name in HOOKS:
            setattr(self.strategy, name, getattr(self, name))
        try:
            yield
        finally:
            for name in HOOKS:
                delattr(self.strategy, name)

    def _budget_named(self) -> str:
        energy = self._settings.energy
        if energy.budget_j is None:
            return "without a budget"
        unit = "bytes" if energy.uplink.j_per_bit is not None else "J"
        return f"a budget of {energy.budget_j:g} {unit}"


def _record_of(message: Message, arrays: ArrayRecord) -> str | None:
    """Return the name of the record in which a message has the strategy's model."""
    for name, record in message.content.array_records.items():
        if record is arrays or record == arrays:
            return str(name)
    return None


def _bytes_in(content: RecordDict) -> bytes:
    record = content.get(RECORD)
    data = record.get(FIELD) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise ValueError(f"its app answered without the mod: {MOD} is what to write")
    return data


def _examples(reply: Message, strategy: Strategy) -> float:
    """Return the weight that the wrapped strategy will give an update, 0 if that is not told."""
    key = getattr(strategy, "weighted_by_key", "num-examples")
    for record in reply.content.metric_records.values():
        value = record.get(key)
        if isinstance(value, int | float) and 0 < value < float("inf"):
            return float(value)
    return 0.0
