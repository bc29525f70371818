"""A federation of Flower apps in one thread, without a network: a grid that calls the apps."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.supercore.task_identity import TaskIdentity

from fedaq.flower.mod import coded

Arrays = dict[str, Any]
Train = Callable[[Arrays, int], Arrays]
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1


def record_of(arrays: Mapping[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(values)) for name, values in arrays.items()})


def arrays_of(record: ArrayRecord) -> Arrays:
    return {name: array.numpy() for name, array in record.items()}


def app_of(train: Train, *, mods: Iterable[Any] = (coded(),)) -> ClientApp:
    """Return an app whose training is `train(arrays, node id)`."""
    app = ClientApp(mods=list(mods))

    @app.train()  # type: ignore[untyped-decorator]
    def _train(message: Message, context: Context) -> Message:
        trained = train(arrays_of(message.content["arrays"]), context.node_id)
        metrics = MetricRecord({"num-examples": 10 * context.node_id})
        content = RecordDict({"arrays": record_of(trained), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()  # type: ignore[untyped-decorator]
    def _evaluate(message: Message, context: Context) -> Message:
        arrays = arrays_of(message.content["arrays"])
        total = float(sum(np.abs(values.astype(np.float64)).sum() for values in arrays.values()))
        metrics = MetricRecord({"num-examples": 10, "total": total})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


class Grid:
    """Nodes 1 to n; every message and context crosses it as bytes.

    Attributes
    ----------
    apps : dict of int to ClientApp
    contexts : dict of int to Context
    sizes : list of (str, int, int)
        Of every round trip: the message's type, and bytes down and up, as Flower serializes them.
    spoil : callable
        Changes a reply, given the node's id.
    """

    def __init__(self, app: ClientApp, nodes: int) -> None:
        self.apps = dict.fromkeys(range(1, nodes + 1), app)
        self.contexts = {
            node: Context(7, node, {}, RecordDict(), {}) for node in range(1, nodes + 1)
        }
        self.sizes: list[tuple[str, int, int]] = []
        self.spoil: Callable[[Message, int], Message] = lambda reply, node: reply

    def get_node_ids(self) -> list[int]:
        return list(self.apps)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        return [reply for message in messages for reply in self._reply(message)]

    def _reply(self, message: Message) -> list[Message]:
        down = message_to_proto(message).SerializeToString()
        node = message.metadata.dst_node_id
        context = deepcopy(self.contexts[node])
        received = message_from_proto(type(message_to_proto(message)).FromString(down))
        try:
            reply = self.apps[node](received, context)
            self.contexts[node] = context
        except Exception as error:
            reply = Message(Error(2, repr(error)), reply_to=message)
        reply = self.spoil(reply, node)
        up = message_to_proto(reply).SerializeToString()
        self.sizes.append((message.metadata.message_type, len(down), len(up)))
        return [message_from_proto(type(message_to_proto(reply)).FromString(up))]
