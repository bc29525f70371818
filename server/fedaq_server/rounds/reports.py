"""What a client says of its training, checked, and what it brought to the round in the end."""

import asyncio
from dataclasses import dataclass, replace
from math import isnan

from fedaq.codec import headers
from fedaq.codec.chunks import expected
from fedaq.codec.model import DIGEST_BYTES, ModelSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Spread
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.record import Relayed, Validation
from fedaq_server.rounds.aggregation import check_magnitude
from fedaq_server.rounds.relayed import relayed_in
from fedaq_server.rounds.round import Differences, Round
from fedaq_server.rounds.validation import reported
from fedaq_server.transport.client import Client
from fedaq_server.transport.faults import TrainingFailedError

# The greatest float32: a sum over all examples of all clients stays finite in float64.
LARGEST_LOSS = 3.4028234663852886e38
# What no training takes: a year at a megawatt.
MOST_TRAINING_J = 3.2e13


@dataclass(frozen=True)
class Report:
    """What one client brought to the round; `payload_bytes` is what its update took."""

    client: Client
    weight: int
    ranges: tuple[Spread, ...]
    train_loss: float
    update: Payload
    payload_bytes: int
    validation: Validation | None
    training_j: float
    relayed: Relayed | None = None
    within_clip: bool = False

    def of_sum(self, train_loss: float, payload_bytes: int) -> "Report":
        """Return the report of a client of whose training nothing is known but the mean."""
        return replace(self, train_loss=train_loss, payload_bytes=payload_bytes)


async def receive_report(
    client: Client, current: Round
) -> tuple[tuple[Spread, ...], float, Validation | None, float, Relayed | None]:
    """Return what a client says of an update that is to be seen."""
    report = (await expected(client.expect, "range_report")).range_report
    tensors = current.state.spec.tensors
    if len(report.ranges) != len(tensors):
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SHAPE,
            f"the range report has {len(report.ranges)} tensors, the model {len(tensors)}",
        )
    _check_success(client, report)
    ranges = tuple(
        headers.reported_spread(tensor.name, message)
        for tensor, message in zip(tensors, report.ranges, strict=True)
    )
    for tensor, spread in zip(tensors, ranges, strict=True):
        check_magnitude(tensor.name, spread)
    if not abs(report.train_loss) <= LARGEST_LOSS:
        raise ProtocolError(
            pb.REFUSAL_REASON_NOT_FINITE, f"the training loss {report.train_loss} is no finite loss"
        )
    if current.differences is not None:
        await check_model(client, current.differences, report.holds)
    relayed = relayed_in(report) if client.relayed is not None else None
    return ranges, report.train_loss, reported(report), training_j(report, current), relayed


async def receive_masked_report(client: Client, current: Round) -> tuple[pb.MaskKeys, float]:
    """Return a client's keys, and what its training took; of its update it says nothing yet."""
    report = (await expected(client.expect, "range_report")).range_report
    _check_success(client, report)
    if not report.HasField("keys"):
        raise ProtocolError(pb.REFUSAL_REASON_KEYS, "a report without keys for masks")
    if current.differences is not None:
        await check_model(client, current.differences, report.holds)
    return report.keys, training_j(report, current)


async def receive_clipped_report(client: Client, current: Round) -> tuple[bool, float]:
    """Return whether an update was short enough, and what its training took."""
    report = (await expected(client.expect, "range_report")).range_report
    _check_success(client, report)
    if current.differences is not None:
        await check_model(client, current.differences, report.holds)
    return report.within_clip, training_j(report, current)


def _check_success(client: Client, report: pb.RangeReport) -> None:
    if isnan(report.train_loss):
        # Else it would be sent again what it holds, at the cost of all.
        note_model(client, report.holds)
        raise TrainingFailedError(
            pb.REFUSAL_REASON_NOT_FINITE, f"the training loss {report.train_loss} is no finite loss"
        )


def training_j(report: pb.RangeReport, current: Round) -> float:
    """Return what a client says that its training took, or what its seconds take."""
    watts = current.federation.settings.energy.training_w or 0.0
    joules = report.training_j if report.HasField("training_j") else watts * report.training_s
    if not 0 <= joules < MOST_TRAINING_J:
        raise ProtocolError(
            pb.REFUSAL_REASON_OUT_OF_RANGE, f"training cannot have taken {joules} J"
        )
    return joules


def magnitude_of(ranges: tuple[Spread, ...], spec: ModelSpec) -> float:
    """Return the sum of the magnitudes of an update's values, those of statistics left out."""
    return sum(s.magnitude * d for s, d in zip(ranges, spec.coded_elements, strict=True))


def note_model(client: Client, holds: bytes) -> None:
    """Take note of which model a client says that it holds."""
    if len(holds) > DIGEST_BYTES:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"a digest of {len(holds)} bytes; it has {DIGEST_BYTES}",
        )
    client.holds = holds


async def check_model(client: Client, differences: Differences, holds: bytes) -> None:
    """Refuse a client that trained from another model than the one of the round."""
    note_model(client, holds)
    advanced = await asyncio.shield(differences.advanced)
    if holds == advanced:
        client.holds = advanced  # the same bytes for all
    else:
        raise ProtocolError(
            pb.REFUSAL_REASON_OTHER_MODEL,
            "you trained from another model than the one that was sent; what you lack comes "
            "with the next round",
        )
