"""What a run leaves behind: ``run.json``, the stable format that later tools read."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite, isnan, nan
from typing import Any

from fedaq.metric import ACCURACY, LOSS, Metric, written

FORMAT_VERSION = 1

_SUMMED = (
    "energy_j", "uplink_payload_bytes", "downlink_payload_bytes", "catch_up_payload_bytes",
    "uplink_wire_bytes", "downlink_wire_bytes", "seconds", "uplink_bits", "downlink_bits",
)  # fmt: skip
_AVERAGED = ("uplink_bits", "downlink_bits")
# Of a round's fields, those that few runs have.
_RARE = (
    "test_metrics", "not_finite", "client_metrics", "validations", "declined", "training_j",
    "relays", "epsilon",
)  # fmt: skip


@dataclass(frozen=True)
class Validation:
    """What one client's test of the model that it received gave.

    Attributes
    ----------
    examples : int
        That it holds back.
    metrics : mapping of str to float
        By name, the loss among them.
    """

    examples: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Relayed:
    """What a relay's update stands for.

    Attributes
    ----------
    clients, examples : int
        Whose updates are in it, and what they hold.
    energy_j : float
        That the relay's hop to them took.
    """

    clients: int
    examples: int
    energy_j: float


@dataclass(frozen=True)
class RoundRecord:
    """One round; the fields are those of ``rounds`` in ``run.json``.

    Attributes
    ----------
    round : int
        From 1.
    test_accuracy, test_loss : float
        Of the model after the round, on the server's test data; the accuracy is 0 to 1, and NaN
        of a task that has none.
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
        Joules for the payload bits in both directions, those of the listening clients included, and
        those of the hops of relays.
    price : float
        The price of a joule that the scheme found, 0 where it has none.
    clients : int
        Whose update counted.
    left_out : int
        Who took part in vain.
    seconds : float
        From the first message of the round to its new model.
    test_metrics : mapping of str to float
        What else the task's test gave, by name; not in the file where it is empty.
    not_finite : tuple of str
        Where the test loss or the task's metric is not finite: tensors of the model that are not
        either, a few of them; not in the file where it is empty.
    client_metrics : mapping of str to float
        Means of what clients' own tests of the model that they received gave, weighted by their
        examples, by name; not in the file where no client has such a test.
    validations : mapping of str to Validation
        Those tests, by client; not in the file either then.
    declined : mapping of str to int
        Clients that were there and took no part, or gave it up, by the reason; not in the file
        where it is empty.
    training_j : float
        Joules that the clients whose update counted spent on training, as far as they are known;
        not in the file where they are not. In no other sum.
    relays : mapping of str to Relayed
        Relays whose update counted: for whom it stood, and what their hops took since they were
        last heard of; not in the file where there are none.
    epsilon : float
        Spent by the run so far, for the delta of its settings; not in the file without
        differential privacy.
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
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()
    client_metrics: Mapping[str, float] = field(default_factory=dict)
    validations: Mapping[str, Validation] = field(default_factory=dict)
    declined: Mapping[str, int] = field(default_factory=dict)
    training_j: float = 0.0
    relays: Mapping[str, Relayed] = field(default_factory=dict)
    epsilon: float = 0.0

    @property
    def relays_j(self) -> float:
        """The part of the joules that went to the hops of relays."""
        return sum(relay.energy_j for relay in self.relays.values())

    def value(self, name: str) -> float:
        """Return what the test gave under a name: the loss, the accuracy or another metric."""
        if name == LOSS:
            return self.test_loss
        return self.test_accuracy if name == ACCURACY else self.test_metrics.get(name, nan)

    @property
    def metrics(self) -> dict[str, float]:
        """All that the test gave besides the loss; no accuracy for a task that has none."""
        counted = {} if isnan(self.test_accuracy) else {ACCURACY: self.test_accuracy}
        return {**counted, **self.test_metrics}

    def flat(self) -> dict[str, Any]:
        """Return the round without mappings: ``test_``, ``client_`` and ``declined_`` and a name.

        What each client's own test gave is left out, and the names of tensors.
        """
        values = {name: value for name, value in vars(self).items() if name not in _RARE}
        if self.training_j:
            values["training_j"] = self.training_j
        if self.relays:
            values["relays_j"] = self.relays_j
        if self.epsilon:
            values["epsilon"] = self.epsilon
        values |= {f"test_{name}": value for name, value in self.test_metrics.items()}
        values |= {f"client_{name}": value for name, value in self.client_metrics.items()}
        return values | {f"declined_{reason}": count for reason, count in self.declined.items()}

    def trouble(self, metric: Metric) -> str:
        """Say that the test loss or the task's metric is not finite; empty if both are."""
        bad = [n for n in dict.fromkeys((LOSS, metric.name)) if not isfinite(self.value(n))]
        if not bad:
            return ""
        said = " and ".join(f"the test {name} is {written(name, self.value(name))}" for name in bad)
        where = ", ".join(self.not_finite)
        return f"{said}; " + (
            f"not finite in the model: {where}" if where else "every tensor of the model is finite"
        )


class Totals:
    """What rounds come to, told of one after the other.

    Parameters
    ----------
    metric : Metric
        Of the task.
    """

    def __init__(self, metric: Metric) -> None:
        self.rounds = 0
        self._metric = metric
        self._final: float | None = None
        self._best: float | None = None
        self._training_j = self._relays_j = 0.0
        self._sums: dict[str, Any] = dict.fromkeys(_SUMMED, 0)

    def add(self, record: RoundRecord) -> None:
        """Take note of a round."""
        self.rounds, final = self.rounds + 1, record.value(self._metric.name)
        self._final = final
        self._best = final if self._best is None else self._metric.better(self._best, final)
        self._training_j += record.training_j
        self._relays_j += record.relays_j
        for name, total in self._sums.items():
            value = getattr(record, name)
            self._sums[name] = None if value is None or total is None else total + value

    def summary(self) -> dict[str, Any]:
        """Return the ``summary`` of a run; the accuracy is None where another metric is."""
        sums = dict(self._sums)
        means = {f"mean_{name}": sums.pop(name) / max(self.rounds, 1) for name in _AVERAGED}
        counted = self._metric.name == ACCURACY
        return {
            "rounds": self.rounds,
            "final_accuracy": self._final if counted else None,
            "best_accuracy": self._best if counted else None,
            "final_metric": self._final,
            "best_metric": self._best,
            **sums,
            **means,
            **({"training_j": self._training_j} if self._training_j else {}),
            **({"relays_j": self._relays_j} if self._relays_j else {}),
        }


def value_of(each: Mapping[str, Any], metric: str) -> float | None:
    """Return a metric of a round as ``run.json`` has it."""
    if metric in (ACCURACY, LOSS):
        own: float | None = each[f"test_{metric}"]
        return own
    value: float | None = each.get("test_metrics", {}).get(metric)
    return value


def summarize(rounds: Iterable[RoundRecord], metric: Metric) -> dict[str, Any]:
    """Return the ``summary`` of a run."""
    totals = Totals(metric)
    for record in rounds:
        totals.add(record)
    return totals.summary()


def round_in_json(record: RoundRecord) -> str:
    """Return a round as it is in ``run.json``."""
    return in_json({name: v for name, v in vars(record).items() if v or name not in _RARE})


def in_json(values: Mapping[str, Any]) -> str:
    """Return values as JSON, null for NaN and for what a diverged model makes infinite."""
    return json.dumps({name: _finite(value) for name, value in values.items()}, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Validation | Relayed):
        return _finite(vars(value))
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value
