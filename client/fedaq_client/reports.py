"""What a client says of its training, as messages have it."""

from math import nan

from fedaq.metric import LOSS
from fedaq.tasks import Evaluation
from fedaq.v1 import federation_pb2 as pb


def no_ranges(tensors: int) -> list[pb.TensorRange]:
    """Return those of an update that is not finite."""
    return [pb.TensorRange(lo=nan, hi=nan)] * tensors


def validation_in(validation: tuple[Evaluation, int] | None) -> pb.Validation | None:
    """Return what a test and its number of examples are, if there was one."""
    if validation is None:
        return None
    evaluation, examples = validation
    values = {LOSS: evaluation.loss, **evaluation.metrics}
    return pb.Validation(
        examples=examples,
        metrics=[pb.Metric(name=name, value=value) for name, value in values.items()],
    )
