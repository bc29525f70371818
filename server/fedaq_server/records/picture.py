"""The picture of a run: its metric and both bit-lengths over the rounds."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedaq.files import replacing
from fedaq_server.records.record import RoundRecord, summarize
from fedaq_server.records.saved import SavedRun, read_run

FEW_ROUNDS = 10
DOWN, UP, METRIC = "#1f6feb", "#d9480f", "#2b8a3e"


class Picture(Figure):
    """A figure that a notebook shows, also where nobody has chosen a backend of matplotlib."""

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


def draw_run(folder: Path) -> Path:
    """Draw ``run.json`` of a folder into ``run.png`` beside it and return the path."""
    figure = figure_of(read_run(folder))
    path = folder / "run.png"
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
    return path


def figure_of(run: SavedRun) -> Figure:
    """Return the picture of a run."""
    figure = Picture(figsize=(8, 6), dpi=120)
    top, bottom = figure.subplots(2, 1, sharex=True)
    metric = run.metric
    draw_rounds(top, run.rounds, [r.value(metric.name) for r in run.rounds], color=METRIC)
    top.set_ylabel(f"test {metric.name}")
    summary = summarize(run.rounds, metric)
    top.set_title(
        f"{run.task}, scheme {run.scheme}, {run.clients} clients: "
        f"{metric.name} {metric.written(summary['final_metric'])} "
        f"for {summary['energy_j']:.3g} J",
        parse_math=False,
    )
    draw_bits(bottom, run.rounds)
    bottom.set_xlabel("round")
    figure.tight_layout()
    return figure


def draw_bits(axes: Axes, rounds: Sequence[RoundRecord]) -> None:
    """Draw the mean bits per value in both directions."""
    draw_rounds(axes, rounds, [r.downlink_bits for r in rounds], color=DOWN, label="downlink")
    draw_rounds(axes, rounds, [r.uplink_bits for r in rounds], color=UP, label="uplink")
    axes.set_ylabel("mean bits per value")
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_rounds(
    axes: Axes, rounds: Sequence[RoundRecord], values: Sequence[float], **style: Any
) -> None:
    """Draw one value per round."""
    # Of a few rounds, or a single one, a line alone shows little or nothing.
    marker = "o" if len(rounds) <= FEW_ROUNDS else ""
    axes.plot([record.round for record in rounds], values, marker=marker, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
