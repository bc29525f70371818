"""What a run leaves behind: ``run.json``, the stable format that later tools read."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

from fedaq.files import replacing

FORMAT_VERSION = 1

_SUMMED = (
    "energy_j", "uplink_payload_bytes", "downlink_payload_bytes", "catch_up_payload_bytes",
    "uplink_wire_bytes", "downlink_wire_bytes", "seconds", "uplink_bits", "downlink_bits",
)  # fmt: skip
_AVERAGED = ("uplink_bits", "downlink_bits")


@dataclass(frozen=True)
class RoundRecord:
    """One round; the fields are those of ``rounds`` in ``run.json``.

    Attributes
    ----------
    round : int
        From 1.
    test_accuracy, test_loss : float
        Of the model after the round, on the server's test data; the accuracy is 0 to 1.
    train_loss : float
        Mean over the clients whose update counted, weighted as those; NaN (null in the file)
        where none did.
    uplink_bits, downlink_bits : float
        Mean bits per value over tensors (and clients); 0 where nothing was sent.
        With an entropy coder, those that were sent.
    uplink_payload_bytes, downlink_payload_bytes : int
        Tensor headers and codes as they were sent, summed over the clients.
    catch_up_payload_bytes : int
        The part of the downlink that went to clients which had missed models.
    uplink_wire_bytes, downlink_wire_bytes : int or None
        All bytes that crossed the sockets since the round before was committed; None where they
        cannot be measured. The good-byes after the last round are in none.
    energy_j : float
        Joules for the payload bits in both directions, those of the listening clients included.
    price : float
        The price of a joule that the scheme found, 0 where it has none.
    clients : int
        Whose update counted.
    left_out : int
        Who took part in vain.
    seconds : float
        From the first message of the round to its new model.
    """

    round: int
    test_accuracy: float
    test_loss: float
    train_loss: float
    uplink_bits: float
    downlink_bits: float
    uplink_payload_bytes: int
    downlink_payload_bytes: int
    catch_up_payload_bytes: int
    uplink_wire_bytes: int | None
    downlink_wire_bytes: int | None
    energy_j: float
    price: float
    clients: int
    left_out: int
    seconds: float


def summarize(rounds: Iterable[RoundRecord]) -> dict[str, Any]:
    """Return the ``summary`` of a run."""
    count, final, best = 0, None, None
    totals: dict[str, Any] = dict.fromkeys(_SUMMED, 0)
    for record in rounds:
        count, final = count + 1, record.test_accuracy
        best = final if best is None else max(best, final)
        for name, total in totals.items():
            value = getattr(record, name)
            totals[name] = None if value is None or total is None else total + value
    means = {f"mean_{name}": totals.pop(name) / max(count, 1) for name in _AVERAGED}
    return {"rounds": count, "final_accuracy": final, "best_accuracy": best, **totals, **means}


def write_run(folder: Path, facts: Mapping[str, Any], rounds: Iterable[RoundRecord]) -> None:
    """Write ``run.json``, round by round; a reader sees the old file or the new one, whole."""
    with replacing(folder / "run.json") as partial, partial.open("w") as file:
        head = json.dumps({"version": FORMAT_VERSION, **facts}, indent=1, allow_nan=False)
        file.write(head.removesuffix("\n}") + ',\n "rounds": [')
        summary = summarize(_written(file, rounds))
        file.write(f'\n ],\n "summary": {_in_json(summary)}\n}}\n')


def _written(file: TextIO, rounds: Iterable[RoundRecord]) -> Iterator[RoundRecord]:
    separator = "\n  "
    for record in rounds:
        file.write(separator + _in_json(vars(record)))
        separator = ",\n  "
        yield record


def _in_json(values: Mapping[str, float | None]) -> str:
    """Put null for NaN, and for what a diverged model makes infinite; JSON has neither."""
    finite = {
        name: value if value is None or isfinite(value) else None for name, value in values.items()
    }
    return json.dumps(finite, allow_nan=False)
