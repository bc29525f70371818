"""The ``run.json`` of a run that is over, as the server writes it."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from fedaq.metric import Metric
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.run_file import RunFile


def write_run(folder: Path, facts: Mapping[str, Any], rounds: Iterable[RoundRecord]) -> None:
    """Write it with these rounds."""
    metric = Metric(**facts.get("metric", {}))
    with closing(RunFile(folder, lambda: facts, lambda after: rounds, metric)) as file:
        file.write(finished=True)
