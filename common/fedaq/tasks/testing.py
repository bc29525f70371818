"""The test of a model: what `Task.evaluate` returned, checked before anything is made of it."""

from numbers import Real
from typing import Any

from torch import nn

from fedaq.metric import A_NAME, LOSS, NAME, Metric
from fedaq.tasks.parts import Evaluation
from fedaq.tasks.task import Task, TaskError, a_type, blamed

MOST_METRICS = 32
WANTED = "fedaq.tasks.Evaluation(accuracy, loss) or Evaluation(loss=..., metrics={...})"


def evaluated(task: Task, module: nn.Module, data: Any) -> Evaluation:
    """Test a model, and return its loss and metrics as plain floats.

    Raises
    ------
    TaskError
        If the test fails, or returns anything else.
    """
    with blamed(task, "evaluate"):
        found = task.evaluate(module, data)
    try:
        return _checked(found, task.metric)
    except ValueError as error:
        raise TaskError(task, f"evaluate returned {error}") from None


def _checked(found: object, metric: Metric) -> Evaluation:
    if not isinstance(found, Evaluation):
        raise ValueError(f"{a_type(found)}; it must return a {WANTED}")
    if len(found.metrics) > MOST_METRICS:
        raise ValueError(f"{len(found.metrics)} metrics; {MOST_METRICS} are the most")
    loss = _number(LOSS, found.loss)
    metrics = {name: _number(_name(name), value) for name, value in found.metrics.items()}
    if metric.name != LOSS and metric.name not in metrics:
        named = ", ".join(metrics) or "no metric"
        raise ValueError(
            f"{named}, and the task's metric is {metric.name}; return that, or say which one is "
            "to be reached: Task(metric=Metric(name, higher_is_better=...)), which may be the loss"
        )
    return Evaluation(loss=loss, metrics=metrics)


def _name(name: object) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"a metric called {name!r}; a name is {A_NAME}")
    if name == LOSS:
        raise ValueError("a metric called loss; that is Evaluation(loss=...)")
    return name


def _number(name: str, value: Any) -> float:
    """Return a number, NumPy's or torch's too, as a plain float."""
    if getattr(value, "ndim", None) is not None and hasattr(value, "item"):
        try:
            value = value.item()
        except (ValueError, RuntimeError):
            shape = "x".join(map(str, value.shape))
            raise ValueError(f"{shape} numbers as {name}; a float is needed") from None
    if not isinstance(value, Real):
        raise ValueError(f"{a_type(value)} as {name}; a float is needed")
    return float(value)
