"""Runs as they were saved: ``run.json`` read again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import nan
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedaq.errors import UserError
from fedaq.metric import Metric
from fedaq_server.conduct import ShutOut
from fedaq_server.records.lost import LEDGER
from fedaq_server.records.record import FORMAT_VERSION, RoundRecord

FILE = "run.json"


@dataclass(frozen=True)
class SavedRun:
    """What ``run.json`` says of a run; the fields are its own.

    Attributes
    ----------
    version : int
        Of the format.
    finished : bool
        Whether the run came to its end.
    fedaq : str
        Version of FedAQ.
    task, scheme : str
    seed, clients : int
    parameters : int
        Values in the model.
    rounds : tuple of RoundRecord
        Those that were committed.
    settings : dict
        As `Settings.model_dump` gives them.
    shut_out : tuple of ShutOut
        Clients that broke the rules too often.
    id : str
        What tells the run from all others; empty in files of earlier versions.
    versions : dict of str to str
        Of what the run was made with; empty in files of earlier versions.
    metric : Metric
        Of its task; the accuracy in files of earlier versions.
    budgets : dict
        What the run and its devices could spend and have spent, and who was empty; none where only
        joules of the run were limited.
    privacy : dict
        What the run could tell of each client and has told: epsilon, delta, the noise; none without
        differential privacy.
    """

    version: int
    finished: bool
    fedaq: str
    task: str
    scheme: str
    seed: int
    clients: int
    parameters: int
    settings: dict[str, Any]
    rounds: tuple[RoundRecord, ...]
    id: str = ""
    shut_out: tuple[ShutOut, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    metric: Metric = field(default_factory=Metric)
    budgets: dict[str, Any] = field(default_factory=dict)
    privacy: dict[str, float] = field(default_factory=dict)


_SAVED = TypeAdapter(SavedRun)
_ROUND = TypeAdapter(RoundRecord)
_FLOATS = [field.name for field in fields(RoundRecord) if field.type is float]


def read_run(folder: Path) -> SavedRun:
    """Read the record of a run.

    Raises
    ------
    UserError
        If the folder has none, or it is not one that this version can read.
    """
    path = folder / FILE
    try:
        document = json.loads(path.read_bytes())
        rounds = [_with_nan(record) for record in document["rounds"]]
        run = _SAVED.validate_python({**document, "rounds": rounds})
    except OSError as error:
        raise UserError(f"{folder}: no run is in there: {FILE}: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UserError(f"{path}: not the record of a run: {where}: {problem['msg']}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path}: not the record of a run; its rounds are in {LEDGER} beside it, and a run "
            "that goes on (--resume) writes it anew"
        ) from None
    if run.version != FORMAT_VERSION:
        raise UserError(f"{path}: has version {run.version}; this fedaq reads {FORMAT_VERSION}")
    return run


def record_of(fields: Mapping[str, Any]) -> RoundRecord:
    """Return a round from its fields as JSON has them, where there may be more of them.

    Raises
    ------
    UserError
        If it is not one.
    """
    try:
        return _ROUND.validate_python(_with_nan(dict(fields)))
    except (ValidationError, LookupError):
        raise UserError("not the record of a round") from None


def _with_nan(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has null where a number was not finite."""
    missing: dict[str, Any] = {name: nan for name in _FLOATS if record.get(name, 0.0) is None}
    validations = {
        name: {**each, "metrics": _numbers(each["metrics"])}
        for name, each in record.get("validations", {}).items()
    }
    return {
        **record,
        **missing,
        "test_metrics": _numbers(record.get("test_metrics", {})),
        "client_metrics": _numbers(record.get("client_metrics", {})),
        "validations": validations,
    }


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: nan if value is None else value for name, value in metrics.items()}
