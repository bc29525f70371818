"""What a run leaves behind: ``run.json``, the stable format that later tools read."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

from fedaq.codec.payload import Payload
from fedaq.energy.cost import downlink_j_per_bit
from fedaq.tasks import Evaluation
from fedaq_server.rounds.exchange import Report
from fedaq_server.schemes import ClientState, RoundState
from fedaq_server.transport.tcp_counter import WireBytes

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Downlink:
    """What went down in a round.

    Attributes
    ----------
    payload : Payload
        The broadcast.
    payload_bytes : int
        What it took, entropy-coded or not.
    catch_up_bytes : mapping of str to int
        What clients that had missed models needed, by name.
    without : frozenset of str
        Those of them that needed the whole model instead of the broadcast.
    """

    payload: Payload
    payload_bytes: int
    catch_up_bytes: Mapping[str, int]
    without: frozenset[str]


@dataclass(frozen=True)
class RoundRecord:
    """One round; the fields are those of ``rounds`` in ``run.json``.

    Attributes
    ----------
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


def measure(
    state: RoundState,
    downlink: Downlink,
    reports: Sequence[Report],
    evaluation: Evaluation,
    wire: WireBytes | None,
    *,
    charged: Mapping[str, int],
    price: float,
    seconds: float,
) -> RoundRecord:
    """Sum up a round.

    `reports` come in the order of the clients' names. Energy is charged for every grant, also
    where the update was left out.
    """
    weight = sum(report.weight for report in reports)
    receivers = len(state.clients)
    loss = sum(report.weight * report.train_loss for report in reports)
    bits = sum(report.update.sent_bits(report.payload_bytes) for report in reports)
    catch_up_bytes = sum(downlink.catch_up_bytes.values())
    return RoundRecord(
        round=state.round,
        test_accuracy=evaluation.accuracy,
        test_loss=evaluation.loss,
        train_loss=loss / weight if reports else nan,
        uplink_bits=bits / max(len(reports), 1),
        downlink_bits=downlink.payload.sent_bits(downlink.payload_bytes),
        uplink_payload_bytes=sum(report.payload_bytes for report in reports),
        downlink_payload_bytes=downlink.payload_bytes * (receivers - len(downlink.without))
        + catch_up_bytes,
        catch_up_payload_bytes=catch_up_bytes,
        uplink_wire_bytes=wire.uplink if wire else None,
        downlink_wire_bytes=wire.downlink if wire else None,
        energy_j=_uplink_j(state, charged) + _downlink_j(state, downlink),
        price=price,
        clients=len(reports),
        left_out=receivers - len(reports),
        seconds=seconds,
    )


def _uplink_j(state: RoundState, charged: Mapping[str, int]) -> float:
    return sum(
        state.clients[name].radio.uplink_j_per_bit * 8 * charged[name] for name in sorted(charged)
    )


def _downlink_j(state: RoundState, downlink: Downlink) -> float:
    return state.downlink_j_per_bit * 8 * downlink.payload_bytes + catch_up_j(
        state.clients, downlink.catch_up_bytes
    )


def catch_up_j(clients: Mapping[str, ClientState], payload_bytes: Mapping[str, int]) -> float:
    """Return the joules of what some clients need besides or instead of the broadcast."""
    return sum(
        8 * extra * downlink_j_per_bit([clients[name].radio], broadcast=False)
        for name, extra in payload_bytes.items()
    )


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


@contextmanager
def replacing(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """Yield where to write a file; it then takes the place of `path` in one step.

    With `flush`, it is on the disk when this ends, whatever happens to the machine.
    """
    partial = path.with_name(path.name + ".part")
    yield partial
    if flush:
        _flush(partial)
    partial.replace(path)
    if flush:
        _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
