"""Messages that are right but for one thing, and bytes that are no message at all."""

from collections.abc import Iterator
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INTEGERS = (0, 1, 2, 3, 7, 8, 31, 32, 33, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
FLOATS = (
    float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-38,
    3.4e38, -3.4e38, 65537.0,
)  # fmt: skip
STRINGS = (
    "", "a/b", "..", "x" * 64, "x" * 65, "\x1b[2J", "\u202e", "ä" * 33, "\0", "client 1", "[/x]",
)  # fmt: skip
WIDTHS = {
    FieldDescriptor.CPPTYPE_INT32: (31, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (63, -(2**63)),
    FieldDescriptor.CPPTYPE_UINT32: (32, 0),
    FieldDescriptor.CPPTYPE_UINT64: (64, 0),
    FieldDescriptor.CPPTYPE_ENUM: (31, -(2**31)),
}
MANY = 300


def mutate(message: Message, random: Random) -> None:
    """Change one field, set or not, at any depth."""
    owner, field = random.choice(list(_fields(message)))
    if field.is_repeated:
        _mutate_repeated(getattr(owner, field.name), field, random)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        if owner.HasField(field.name) and random.random() < 0.5:
            owner.ClearField(field.name)
        else:
            getattr(owner, field.name).SetInParent()
    else:
        setattr(owner, field.name, _value(field, getattr(owner, field.name), random))


def _fields(message: Message) -> Iterator[tuple[Message, Any]]:
    for field in message.DESCRIPTOR.fields:
        yield message, field
        if field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE:
            continue
        if field.is_repeated:
            for part in getattr(message, field.name)[:8]:
                yield from _fields(part)
        elif message.HasField(field.name):
            yield from _fields(getattr(message, field.name))


def _mutate_repeated(values: Any, field: FieldDescriptor, random: Random) -> None:
    of_messages = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
    kind = random.randrange(4)
    if kind == 0 and values:
        del values[random.randrange(len(values))]
    elif kind == 1 and values:
        del values[random.randrange(len(values)) :]
    else:
        for _ in range(1 if kind == 2 else MANY):
            if of_messages:
                values.add()
            else:
                values.append(_value(field, values[-1] if values else 0, random))
    if values and not of_messages and kind != 3:
        at = random.randrange(len(values))
        values[at] = _value(field, values[at], random)


def _value(field: FieldDescriptor, current: Any, random: Random) -> Any:
    if field.cpp_type in WIDTHS:
        bits, least = WIDTHS[field.cpp_type]
        near = (current - 1, current + 1, 2 * current, current ^ 1 << random.randrange(bits))
        return min(max(random.choice((*INTEGERS, *near)), least), 2**bits - 1)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return random.choice((*FLOATS, -current, 2 * current, current / 2))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not current
    if field.type == FieldDescriptor.TYPE_STRING:
        return random.choice(STRINGS)
    return mutated_bytes(current, random)


def mutated_bytes(data: bytes, random: Random) -> bytes:
    """Flip, cut out, repeat or put in a few bytes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        at = random.randrange(len(changed) + 1)
        end = min(len(changed), at + random.choice((1, 2, 8, 64)))
        kind = random.randrange(4)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del changed[at:end]
        elif kind == 2:
            changed[at:at] = changed[at:end]
        else:
            changed[at:at] = random.randbytes(end - at or 4)
    return bytes(changed)
