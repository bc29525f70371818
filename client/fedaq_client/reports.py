"""What a client says when its training is over."""

from collections.abc import Mapping
from math import nan

from fedaq.codec import headers
from fedaq.codec.quantizer import Spread
from fedaq.metric import LOSS
from fedaq.tasks import Evaluation
from fedaq.v1 import federation_pb2 as pb


def trained(loss: float, validation: tuple[Evaluation, int] | None) -> pb.RangeReport:
    """Return what is known of a training; what it took is to be added."""
    report = pb.RangeReport(train_loss=loss)
    if validation is not None:
        evaluation, examples = validation
        values = {LOSS: evaluation.loss, **evaluation.metrics}
        report.validation.CopyFrom(validated(examples, values))
    return report


def validated(examples: int, values: Mapping[str, float]) -> pb.Validation:
    """Return what a test on so many examples that are held back gave, by the metric."""
    return pb.Validation(
        examples=examples,
        metrics=[pb.Metric(name=name, value=value) for name, value in values.items()],
    )


def seen(
    round_number: int, known: pb.RangeReport, spreads: tuple[Spread, ...], holds: bytes
) -> pb.RangeReport:
    """Return the report of an update that the server is to see: with all that is known."""
    report = pb.RangeReport(
        round=round_number, ranges=map(headers.spread_message, spreads), holds=holds
    )
    report.MergeFrom(known)
    return report


def hidden(round_number: int, known: pb.RangeReport, holds: bytes) -> pb.RangeReport:
    """Return the report of an update that is masked: of its training, what it took alone."""
    report = pb.RangeReport(round=round_number, holds=holds, training_s=known.training_s)
    if known.HasField("training_j"):
        report.training_j = known.training_j
    return report


def failure(round_number: int, tensors: int, holds: bytes) -> pb.RangeReport:
    """Return a report that the server refuses at once, instead of waiting for an update."""
    nothing = pb.TensorRange(lo=nan, hi=nan)
    return pb.RangeReport(
        round=round_number, ranges=[nothing] * tensors, train_loss=nan, holds=holds
    )
