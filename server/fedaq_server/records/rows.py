"""How what is kept lies in the rows of the ledger."""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from math import nan
from typing import Any

from fedaq.codec.quantizer import Spread
from fedaq_server.records.record import Relayed, RoundRecord, Validation

# Of an update, per tensor, by the client that sent it.
RangesOf = Mapping[str, tuple[Spread, ...]]


@dataclass(frozen=True)
class Transfer:
    """What one client was sent in a round, or sent.

    Attributes
    ----------
    client : str
    direction : str
        ``uplink`` or ``downlink``.
    payload_bytes : int
        Of an update that is not counted: what was granted, for it may have cost energy.
    counted : bool
        Whether the update was whole in time; always of the downlink.
    """

    client: str
    direction: str
    payload_bytes: int
    counted: bool


def ranges_text(ranges: tuple[Spread, ...]) -> str:
    """Return ranges as the ledger keeps them."""
    return json.dumps([astuple(spread) for spread in ranges])


def ranges_of(text: str) -> tuple[Spread, ...]:
    """Return ranges that the ledger kept."""
    return tuple(Spread(*values) for values in json.loads(text))


def row_of(record: RoundRecord) -> tuple[Any, ...]:
    """Return a record as a row; what is no number is JSON."""
    return tuple(map(_cell, vars(record).values()))


def _cell(value: object) -> Any:
    if isinstance(value, int | float | None):
        return value
    return json.dumps(value, default=vars) if value else None


def record_of(row: tuple[Any, ...]) -> RoundRecord:
    """Return a row as a record; SQLite has no NaN, it keeps NULL in its place."""
    pairs = zip(fields(RoundRecord), row, strict=True)
    values: dict[str, Any] = {
        field.name: nan if value is None and field.type is float else value
        for field, value in pairs
    }
    values["test_metrics"] = json.loads(values["test_metrics"] or "{}")
    values["declined"] = json.loads(values["declined"] or "{}")
    values["not_finite"] = tuple(json.loads(values["not_finite"] or "[]"))
    values["client_metrics"] = json.loads(values["client_metrics"] or "{}")
    told = json.loads(values["validations"] or "{}")
    values["validations"] = {name: Validation(**each) for name, each in told.items()}
    relays = json.loads(values["relays"] or "{}")
    values["relays"] = {name: Relayed(**each) for name, each in relays.items()}
    return RoundRecord(**values)
