"""What a run came to, for programs and notebooks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fedaq.errors import UserError
from fedaq.metric import Metric
from fedaq.process.terminal import si
from fedaq.tasks import Task, load_task
from fedaq.tasks.hardware import left_as_it_was
from fedaq_server.records.exporting import data_of, trained_model
from fedaq_server.records.record import RoundRecord, summarize
from fedaq_server.records.saved import SavedRun, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A run: its rounds, its model, and what it cost.

    Attributes
    ----------
    record : SavedRun
        All that ``run.json`` says: settings, versions, rounds.
    folder : Path or None
        Of the run; None where nobody asked for one.
    """

    record: SavedRun
    folder: Path | None
    _task: Task | None = field(default=None)

    @property
    def rounds(self) -> tuple[RoundRecord, ...]:
        """The committed rounds."""
        return self.record.rounds

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return self.record.metric

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the run."""
        return self.record.settings

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """Sums and means over the rounds, as ``run.json`` has them."""
        return summarize(self.rounds, self.metric)

    @property
    def final(self) -> float:
        """The task's metric after the last round; NaN without a round."""
        return float("nan") if not self.rounds else self.rounds[-1].value(self.metric.name)

    @property
    def energy_j(self) -> float:
        """Joules of all payload bits, both directions."""
        return float(self.summary["energy_j"])

    @property
    def uplink_bytes(self) -> int:
        """Payload bytes that clients sent."""
        return int(self.summary["uplink_payload_bytes"])

    @property
    def downlink_bytes(self) -> int:
        """Payload bytes that were sent to clients."""
        return int(self.summary["downlink_payload_bytes"])

    @property
    def history(self) -> "DataFrame":
        """A row for every round: the fields of `RoundRecord`, and a column for each metric.

        Raises
        ------
        ModuleNotFoundError
            Without pandas.
        """
        from pandas import DataFrame

        rows = [{**record.flat(), "not_finite": record.not_finite} for record in self.rounds]
        return DataFrame(rows, columns=None if rows else ["round"]).set_index("round")

    @cached_property
    def model(self) -> nn.Module:
        """The task's module with the weights of the last round, ready to be used.

        Raises
        ------
        UserError
            If the run is not over, or nobody knows its task.
        """
        if self.folder is None:
            raise UserError("the run has no folder, and no model")
        with left_as_it_was():
            task = self._task or load_task(self.record.task, data_of(self.record, self.folder))
            return trained_model(task, self.record, self.folder)

    def without_folder(self) -> "Result":
        """Return the same, with the model in memory, for when the folder is gone."""
        alone = replace(self, folder=None)
        alone.__dict__["model"] = self.model
        return alone

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of `model` by name."""
        return self.model.state_dict()

    def plot(self) -> "Figure":
        """Return a figure of the metric and of both bit-lengths over the rounds."""
        from fedaq_server.records.picture import figure_of

        return figure_of(self.record)

    def __repr__(self) -> str:
        record, last = self.record, len(self.rounds)
        return (
            f"<{record.task}, scheme {record.scheme}, seed {record.seed}: {self.metric.name} "
            f"{self.metric.written(self.final)} after {last} round{'s'[: last != 1]} "
            f"for {si(self.energy_j, 'J')}>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: numbers, and the picture."""
        payload = self.uplink_bytes + self.downlink_bytes
        facts = {
            f"final {self.metric.name}": self.metric.written(self.final),
            "energy": si(self.energy_j, "J"),
            "payload": si(payload, "B"),
            "bits per value down": f"{self.summary['mean_downlink_bits']:.2f}",
            "bits per value up": f"{self.summary['mean_uplink_bits']:.2f}",
            "rounds": str(len(self.rounds)),
            "clients": str(self.record.clients),
            "weights": f"{self.record.parameters:,}",
        }
        if self.record.privacy:
            spent, epsilon = self.record.privacy["spent"], self.record.privacy["epsilon"]
            facts["epsilon"] = (
                f"{spent:.4g} of {epsilon:g} for delta {self.record.privacy['delta']:g}"
            )
        title = f"{self.record.task}, scheme {self.record.scheme}, seed {self.record.seed}"
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in facts.items()
        )
        picture = as_svg(self.plot()) if self.rounds else ""
        return f"<div><b>{escape(title)}</b><table>{cells}</table>{picture}</div>"


def as_svg(figure: "Figure") -> str:
    """Return a figure as an element of a page."""
    text = StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def load(folder: Path | str, *, task: Task | None = None) -> Result:
    """Read the folder of a run.

    Parameters
    ----------
    folder : Path or str
    task : Task, optional
        What was learned, if its name alone does not lead to it.

    Returns
    -------
    Result

    Raises
    ------
    UserError
        If no run is in there that this version can read.
    """
    return Result(read_run(Path(folder)), Path(folder), task)
