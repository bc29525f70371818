"""What clients say of the model that they received, on examples that they hold back."""

from collections import Counter
from collections.abc import Collection, Mapping

from fedaq.errors import ProtocolError
from fedaq.metric import A_NAME, NAME
from fedaq.tasks.testing import MOST_METRICS
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.record import Validation
from fedaq_server.transport.client import MAX_EXAMPLES


def reported(report: pb.RangeReport) -> Validation | None:
    """Return the validation in a report, if there is one.

    Raises
    ------
    ProtocolError
        If it is none that can be.
    """
    if not report.HasField("validation"):
        return None
    told = report.validation
    if len(told.metrics) > MOST_METRICS + 1:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"a validation with {len(told.metrics)} metrics; the loss and {MOST_METRICS} others "
            "are the most",
        )
    if not 0 < told.examples <= MAX_EXAMPLES:
        raise ProtocolError(
            pb.REFUSAL_REASON_OUT_OF_RANGE,
            f"a validation on {told.examples} examples; it needs 1 to {MAX_EXAMPLES}",
        )
    values = {metric.name: metric.value for metric in told.metrics}
    if len(values) < len(told.metrics) or not all(map(NAME.fullmatch, values)):
        raise ProtocolError(
            pb.REFUSAL_REASON_OUT_OF_RANGE,
            f"metrics of a validation need names of their own: {A_NAME}",
        )
    return Validation(told.examples, values)


def of_names(told: Validation, names: Collection[str]) -> Validation:
    """Return of a validation the metrics of these names: others would be a client's to invent."""
    return Validation(told.examples, {n: v for n, v in told.metrics.items() if n in names})


def told_by_most(told: Mapping[str, Validation]) -> frozenset[str]:
    """Return the names of metrics that more than half of the clients tell, 33 at the most.

    A relay tests nothing, and so does not know which there are.
    """
    times = Counter(name for each in told.values() for name in each.metrics)
    common = [name for name, count in times.most_common() if 2 * count > len(told)]
    return frozenset(common[: MOST_METRICS + 1])


def averaged(validations: Mapping[str, Validation]) -> dict[str, float]:
    """Return the mean of each metric over the clients that have it, weighted by their examples.

    Where one is not finite, its mean is not.
    """
    names = dict.fromkeys(name for each in validations.values() for name in each.metrics)
    return {name: _mean(name, validations) for name in names}


def _mean(name: str, validations: Mapping[str, Validation]) -> float:
    given = [each for each in validations.values() if name in each.metrics]
    total = sum(each.examples for each in given)
    return sum(each.examples / total * each.metrics[name] for each in given)
