"""How what is kept lies in the rows of the ledger."""

import json
from dataclasses import astuple, fields
from math import nan
from typing import Any

from fedaq.codec.quantizer import Spread
from fedaq_server.records.record import RoundRecord


def ranges_text(ranges: tuple[Spread, ...] | None) -> str | None:
    """Return ranges as the ledger keeps them."""
    return None if ranges is None else json.dumps([astuple(spread) for spread in ranges])


def ranges_of(text: str | None) -> tuple[Spread, ...] | None:
    """Return ranges that the ledger kept."""
    return None if text is None else tuple(Spread(*values) for values in json.loads(text))


def row_of(record: RoundRecord) -> tuple[Any, ...]:
    """Return a record as a row; what is no number is JSON."""
    return tuple(
        value if isinstance(value, int | float | None) else json.dumps(value) if value else None
        for value in vars(record).values()
    )


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
    return RoundRecord(**values)
