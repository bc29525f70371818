"""What a client says when its training is over."""

from math import nan

from fedaq.codec import headers
from fedaq.codec.quantizer import Spread
from fedaq.metric import LOSS
from fedaq.tasks import Evaluation
from fedaq.v1 import federation_pb2 as pb


def seen(
    round_number: int,
    spreads: tuple[Spread, ...],
    loss: float,
    validation: tuple[Evaluation, int] | None,
    holds: bytes,
) -> pb.RangeReport:
    """Return the report of an update that the server is to see."""
    return pb.RangeReport(
        round=round_number,
        ranges=map(headers.spread_message, spreads),
        train_loss=loss,
        holds=holds,
        validation=_validation_in(validation),
    )


def failure(round_number: int, tensors: int, holds: bytes) -> pb.RangeReport:
    """Return a report that the server refuses at once, instead of waiting for an update."""
    nothing = pb.TensorRange(lo=nan, hi=nan)
    return pb.RangeReport(
        round=round_number, ranges=[nothing] * tensors, train_loss=nan, holds=holds
    )


def _validation_in(validation: tuple[Evaluation, int] | None) -> pb.Validation | None:
    if validation is None:
        return None
    evaluation, examples = validation
    values = {LOSS: evaluation.loss, **evaluation.metrics}
    return pb.Validation(
        examples=examples,
        metrics=[pb.Metric(name=name, value=value) for name, value in values.items()],
    )
