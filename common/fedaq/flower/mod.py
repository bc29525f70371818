"""The mod of a ClientApp: coded differences in, coded updates out, plain arrays for the app.

A ClientApp forgets everything between two messages but `context.state`. There, in a record of its
own, lies what the node holds and what of its last update was left unsent.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from google.protobuf.message import DecodeError

from fedaq.codec import payload, statistics
from fedaq.codec.given import Dither, Past
from fedaq.codec.model import Kind
from fedaq.codec.payload import ZERO, Payload, TensorCode
from fedaq.codec.quantizer import Floats, Spread
from fedaq.errors import NotFiniteError, ProtocolError
from fedaq.flower import layout, payloads
from fedaq.flower.layout import Layout
from fedaq.flower.payloads import FIELD, LACKING, RECORD, Held
from fedaq.v1 import flower_pb2 as pb

App = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, App], Message]
# Of tensors of an update that were not sent, by their number.
Unsent = dict[int, Floats]


def coded() -> Mod:
    """Return the mod for ``ClientApp(mods=[coded()])``.

    Among several mods it is the first: all others, and the app, see plain arrays. A message that
    the strategy `Coded` has not touched is handed on as it is. A node that does not hold what the
    server took it to hold answers with an error; the next message brings the whole model.
    """
    return _mod


def _mod(message: Message, context: Context, call_next: App) -> Message:
    if not message.has_content() or RECORD not in message.content:
        return call_next(message, context)
    try:
        down = pb.FlowerDown.FromString(_bytes_in(message.content))
        held, is_new = _received(_state_of(context), down)
    except (DecodeError, ProtocolError, ValueError) as error:
        return _refusal(message, f"fedaq: what the server sent is broken: {error}")
    if held is None:
        return _refusal(message, LACKING)
    unsent: Unsent = {} if is_new else _state_of(context).unsent
    # Before the app runs: if that fails, the node still holds the model.
    _keep(context, held, unsent)
    reply = call_next(_plain(message, down.record, held), context)
    if reply.has_error() or not down.HasField("grant"):
        return reply
    try:
        return _coded_reply(reply, context, down, held, unsent)
    except NotFiniteError as error:
        return _refusal(message, f"fedaq: after training, {error}")


def _bytes_in(content: RecordDict) -> bytes:
    record = content[RECORD]
    data = record.get(FIELD) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise ValueError(f"record {RECORD!r} has no bytes {FIELD!r}")
    return data


def _refusal(message: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


def _received(state: "_State", down: pb.FlowerDown) -> tuple[Held | None, bool]:
    """Return the model that the server says is held now, None if it is not.

    The second tells whether it began anew: then nothing is left of earlier updates.
    """
    held, is_new = state.held, False
    for message in down.payloads:
        held = payloads.after(held, message)
        is_new = is_new or not message.header.base
    if held is None or held.digest() != down.holds:
        return None, is_new
    return held, is_new


def _plain(message: Message, record: str, held: Held) -> Message:
    """Return the message as the strategy made it."""
    arrays = held.layout.arrays(held.flat, held.exact)
    others = {name: value for name, value in message.content.items() if name != RECORD}
    plain = copy(message)
    plain.content = RecordDict({record: array_record(arrays), **others})
    return plain


def array_record(arrays: Mapping[str, Any]) -> ArrayRecord:
    """Return arrays as Flower has them."""
    return ArrayRecord({name: Array(np.asarray(values)) for name, values in arrays.items()})


# ---- The update ------------------------------------------------------------------


def _coded_reply(
    reply: Message, context: Context, down: pb.FlowerDown, held: Held, unsent: Unsent
) -> Message:
    up = pb.FlowerUp(holds=down.holds)
    others = dict(reply.content.items())
    name = _record_of(reply.content, down.record)
    trained = {} if name is None else _numpy(reply.content[name])
    if name is not None and _is_codable(held.layout, trained):
        del others[name]
        up.record = "" if name == down.record else name
        update = _update(held, trained)
        for tensor, values in unsent.items():
            update[held.layout.spec.slices[tensor]] += values
        header = _fill(up, update, down.grant, held, trained, context.node_id)
        _keep(context, held, _left_unsent(header, update))
    answer = ConfigRecord({FIELD: up.SerializeToString()})
    reply.content = RecordDict({RECORD: answer, **others})
    return reply


def _record_of(content: RecordDict, received: str) -> str | None:
    """Return the name of the record that has the trained arrays, if it is plain which one."""
    names = list(content.array_records)
    if received in names:
        return received
    return names[0] if len(names) == 1 else None


def _numpy(record: ArrayRecord) -> dict[str, Any]:
    return {name: array.numpy() for name, array in record.items()}


def _is_codable(received: Layout, trained: Mapping[str, Any]) -> bool:
    """Tell whether an update can be told; else the arrays are sent as the app left them."""
    return received.fits(trained) and all(
        exact or trained[name].dtype.kind == "f"
        for name, exact in zip(received.names, received.exact, strict=True)
    )


def _update(held: Held, trained: Mapping[str, Any]) -> Floats:
    """Return what training changed: of statistics, in their units.

    It began with what was left of the held values in the app's own types.
    """
    spec = held.layout.spec
    received = held.layout.arrays(held.flat, held.exact)
    update = held.layout.flat(trained) - held.layout.flat(received)
    own = spec.statistics
    unit = statistics.units(spec, held.flat[own], statistics.UPLINK)
    statistics.in_units(update[own], unit)
    return update


def _fill(
    up: pb.FlowerUp,
    update: Floats,
    grant: pb.FlowerGrant,
    held: Held,
    trained: Mapping[str, Any],
    node_id: int,
) -> Payload:
    """Code the update into `up`; return the header that it got."""
    spec, layout_up = held.layout.spec, held.layout.having(held.layout.dtypes_of(trained))
    spreads = payload.tensor_spreads(spec, update.__getitem__)
    up.spreads = payloads.spreads_to_bytes(spreads)
    unsent = set(grant.unsent)
    planned = Payload(
        spec,
        tuple(
            ZERO if number in unsent else _code(spread, grant.step)
            for number, spread in enumerate(spreads)
        ),
    )
    keys = payload.transfer_keys(spec, grant.round, "flower", node_id)
    header, coded_chunks = payloads.encoded(
        planned,
        update.__getitem__,
        keys,
        grant.round,
        nearest=False,
        known=Dither(keys.__getitem__),
        limit_bytes=grant.limit_bytes,
    )
    message = payloads.to_message(header, coded_chunks, grant.round)
    exact = layout_up.as_they_are(trained)
    if layout_up.dtypes != held.layout.dtypes:
        message.dtypes.extend(layout_up.dtypes)
        message.exact = exact
    elif exact != held.exact:
        message.exact = exact
    up.payload.CopyFrom(message)
    return header


def _code(spread: Spread, step: float) -> TensorCode:
    return ZERO if spread.is_zero else payload.step_code(spread, step)


def _left_unsent(header: Payload, update: Floats) -> Unsent:
    """Return the tensors of which nothing is sent; they are added to the next update.

    Of statistics nothing is kept: the next update has them anew.
    """
    spec = header.spec
    return {
        number: update[part].copy()
        for number, (code, tensor, part) in enumerate(
            zip(header.codes, spec.tensors, spec.slices, strict=True)
        )
        if code == ZERO and tensor.kind == Kind.CODED and update[part].any()
    }


# ---- What survives between two messages ------------------------------------------


@dataclass(frozen=True)
class _State:
    """What a node kept: nothing at first, and where it was lost."""

    held: Held | None = None
    unsent: Unsent = field(default_factory=dict)


def _state_of(context: Context) -> _State:
    record = context.state.get(RECORD)
    if not isinstance(record, ConfigRecord):
        return _State()
    try:
        kept = layout.from_message(pb.FlowerLayout.FromString(record["layout"]))
        flat = np.frombuffer(record["flat"], "<f4").astype(np.float32)
        left = np.frombuffer(record["unsent"], "<f4").astype(np.float32)
        tensors = np.frombuffer(record["tensors"], "<u4").tolist()
        sizes = [kept.spec.elements[number] for number in tensors]
        past = Past(np.frombuffer(record["past"], np.uint8).copy())
        if {len(flat), len(past.noted)} != {kept.spec.parameters} or len(left) != sum(sizes):
            return _State()
        ends = np.cumsum([0, *sizes])
        unsent = {n: left[a:b] for n, a, b in zip(tensors, ends, ends[1:], strict=False)}
        return _State(Held(kept, flat, record["exact"], past), unsent)
    except (KeyError, TypeError, ValueError, IndexError, DecodeError):
        # Another version's: as good as none.
        return _State()


def _keep(context: Context, held: Held, unsent: Unsent) -> None:
    left = np.concatenate([np.empty(0, np.float32), *unsent.values()])
    context.state[RECORD] = ConfigRecord(
        {
            "layout": layout.to_message(held.layout).SerializeToString(),
            "flat": held.flat.astype("<f4", copy=False).tobytes(),
            "exact": held.exact,
            "past": held.past.noted.tobytes(),
            "unsent": left.astype("<f4", copy=False).tobytes(),
            "tensors": np.array(list(unsent), "<u4").tobytes(),
        }
    )
