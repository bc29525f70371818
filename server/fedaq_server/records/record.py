"""What a run leaves behind: ``run.json``, the stable format that later tools read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from fedaq_server.records.files import replacing

FORMAT_VERSION = 1


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
        All bytes that crossed the sockets; None where they cannot be measured.
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


def summarize(rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return the ``summary`` of a run."""

    def total(name: str) -> Any:
        values = [getattr(record, name) for record in rounds]
        return None if None in values else sum(values)

    sums = (
        "energy_j",
        "uplink_payload_bytes",
        "downlink_payload_bytes",
        "catch_up_payload_bytes",
        "uplink_wire_bytes",
        "downlink_wire_bytes",
        "seconds",
    )
    return {
        "rounds": len(rounds),
        "final_accuracy": rounds[-1].test_accuracy if rounds else None,
        "best_accuracy": max((record.test_accuracy for record in rounds), default=None),
        **{name: total(name) for name in sums},
        "mean_uplink_bits": total("uplink_bits") / max(len(rounds), 1),
        "mean_downlink_bits": total("downlink_bits") / max(len(rounds), 1),
    }


def write_run(folder: Path, facts: Mapping[str, Any], rounds: Sequence[RoundRecord]) -> None:
    """Write ``run.json``; a reader sees the old file or the new one, never half of one."""
    document = {
        "version": FORMAT_VERSION,
        **facts,
        "rounds": [_in_json(asdict(record)) for record in rounds],
        "summary": _in_json(summarize(rounds)),
    }
    with replacing(folder / "run.json") as partial:
        partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def _in_json(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Put null for NaN, and for what a diverged model makes infinite; JSON has neither."""
    return {
        name: value if value is None or isfinite(value) else None for name, value in values.items()
    }
