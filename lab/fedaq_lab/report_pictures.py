"""The pictures of a report, as SVG in the page's own colours and as PNG."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from math import isfinite, nan
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FormatStrFormatter

from fedaq.errors import printable
from fedaq.metric import LOSS
from fedaq_server.records.picture import draw_bits, draw_rounds
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.saved import SavedRun

SIZE = (6.4, 3.6)
MANY_LINES = 6
# Bits that differ by more than this factor are drawn on a logarithmic scale.
WIDE = 8
# Told apart by most people, on white and on black.
COLORS = (
    "#2f7ed8", "#e8590c", "#2f9e44", "#ae3ec9", "#0c8599",
    "#e03131", "#b8860b", "#7048e8", "#868e96", "#d6336c",
)  # fmt: skip
# What is drawn in it takes the colour of the page's text.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": _INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}

Rounds = Sequence[RoundRecord]
Values = Callable[[Rounds], list[float]]


@dataclass(frozen=True)
class Line:
    """Runs that are drawn in one colour: one run, or one scheme with several seeds."""

    name: str
    runs: tuple[SavedRun, ...]


@dataclass(frozen=True)
class Picture:
    """A picture; `name` is that of its file, without the ending."""

    name: str
    title: str
    svg: Markup
    png: bytes

    @classmethod
    def of(cls, name: str, title: str, draw: Callable[[Axes], None]) -> "Picture":
        """Draw a picture in both forms."""
        # Names of runs may have letters that the font lacks.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        with (
            warnings.catch_warnings(),
            mpl.rc_context({**_STYLE, "svg.hashsalt": name}),
        ):
            warnings.simplefilter("ignore")
            figure = Figure(figsize=SIZE, dpi=140, layout="constrained")
            draw(figure.subplots())
            figure.get_axes()[0].grid(alpha=0.2)
            svg, png = io.StringIO(), io.BytesIO()
            figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
            figure.savefig(png, format="png")
        return cls(name, title, _inline(svg.getvalue(), name, title), png.getvalue())


def _inline(svg: str, name: str, title: str) -> Markup:
    """Return what may stand in a page with other pictures: ids of its own, no prologue."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", name)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]+")[^>]*>', lambda found: _opening(found[1], title), svg, count=1
    )
    # matplotlib has escaped every text in it.
    return Markup(svg)


def _opening(view: str, title: str) -> str:
    return (
        f'<svg {view} role="img" aria-label="{Markup.escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


def drawn(lines: Sequence[Line]) -> list[Picture]:
    """Return the pictures of some runs."""
    lines = [line for line in lines if any(run.rounds for run in line.runs)]
    if not lines:
        return []
    curves: list[tuple[str, str, Callable[[Axes], None]]] = [
        *_metrics(lines),
        ("loss", "Test loss", _over_rounds(lines, "test loss", _loss)),
        ("energy", "Energy spent so far", _over_rounds(lines, "energy", _energy, "J")),
        *_bits(lines),
        (
            "payload",
            "Payload so far, both directions",
            _over_rounds(lines, "payload", _payload, "B"),
        ),
    ]
    return [Picture.of(name, title, draw) for name, title, draw in curves]


def _metrics(lines: Sequence[Line]) -> Iterator[tuple[str, str, Callable[[Axes], None]]]:
    """Yield two pictures of each metric that the runs' tasks are about."""
    for name in dict.fromkeys(run.metric.name for line in lines for run in line.runs):
        label, value = f"test {name}", partial(_values, name)
        if name != LOSS:
            yield name, label.capitalize(), _over_rounds(lines, label, value)
        title = f"{label.capitalize()} for the energy spent"
        yield f"{name}-energy", title, _for_energy(lines, label, value)


def _values(name: str, rounds: Rounds) -> list[float]:
    return [record.value(name) for record in rounds]


def _bits(lines: Sequence[Line]) -> list[tuple[str, str, Callable[[Axes], None]]]:
    if len(lines) == 1 == len(lines[0].runs):
        rounds = lines[0].runs[0].rounds
        return [("bits", "Mean bits per value", lambda axes: _single_bits(axes, rounds))]
    return [
        ("bits-up", "Mean bits per value, uplink", _bits_over_rounds(lines, _up)),
        ("bits-down", "Mean bits per value, downlink", _bits_over_rounds(lines, _down)),
    ]


def _single_bits(axes: Axes, rounds: Rounds) -> None:
    draw_bits(axes, rounds)
    axes.set_xlabel("round")


def _loss(rounds: Rounds) -> list[float]:
    return [record.test_loss for record in rounds]


def _up(rounds: Rounds) -> list[float]:
    # Where nothing was sent there is no point on a logarithmic scale.
    return [record.uplink_bits or nan for record in rounds]


def _down(rounds: Rounds) -> list[float]:
    return [record.downlink_bits or nan for record in rounds]


def _energy(rounds: Rounds) -> list[float]:
    return list(accumulate(record.energy_j for record in rounds))


def _payload(rounds: Rounds) -> list[float]:
    return list(
        accumulate(float(r.uplink_payload_bytes + r.downlink_payload_bytes) for r in rounds)
    )


def _bits_over_rounds(lines: Sequence[Line], values: Values) -> Callable[[Axes], None]:
    draw = _over_rounds(lines, "bits per value", values)

    def draw_scaled(axes: Axes) -> None:
        draw(axes)
        drawn_bits = (bits for line in lines for run in line.runs for bits in values(run.rounds))
        sent = [bits for bits in drawn_bits if isfinite(bits)]
        if sent and max(sent) > WIDE * min(sent):
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))

    return draw_scaled


def _over_rounds(
    lines: Sequence[Line], label: str, values: Values, unit: str = ""
) -> Callable[[Axes], None]:
    """Draw values over rounds; those with a unit are totals, which begin at 0."""

    def draw(axes: Axes) -> None:
        for index, line in enumerate(lines):
            for run in line.runs:
                draw_rounds(axes, run.rounds, values(run.rounds), **_style(index, line))
        axes.set_xlabel("round")
        axes.set_ylabel(label)
        if unit:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(EngFormatter(unit))
        _legend(axes, lines)

    return draw


def _for_energy(lines: Sequence[Line], label: str, values: Values) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for index, line in enumerate(lines):
            for run in line.runs:
                axes.plot(_energy(run.rounds), values(run.rounds), **_style(index, line))
        if sum(len(line.runs) for line in lines) > 1:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter("J"))
        axes.set_xlabel("energy spent")
        axes.set_ylabel(label)
        _legend(axes, lines)

    return draw


def _style(index: int, line: Line) -> dict[str, Any]:
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": ("-", "--", ":", "-.")[index // len(COLORS) % 4],
        "linewidth": 1.8 if len(line.runs) == 1 else 1.3,
        "markersize": 3,
    }


def _legend(axes: Axes, lines: Sequence[Line]) -> None:
    if len(lines) == 1:
        return
    handles = [
        Line2D([], [], **{**_style(i, line), "linewidth": 2}) for i, line in enumerate(lines)
    ]
    names = [printable(line.name)[:40] for line in lines]
    many = len(lines) > MANY_LINES
    axes.legend(handles, names, fontsize=6 if many else 8, ncols=2 if many else 1)
