"""The picture of a run: accuracy and both bit-lengths over the rounds."""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

FEW_ROUNDS = 10
DOWN, UP, ACCURACY = "#1f6feb", "#d9480f", "#2b8a3e"


def draw_run(folder: Path) -> Path:
    """Draw ``run.json`` of a folder into ``run.png`` beside it and return the path."""
    run = json.loads((folder / "run.json").read_text())
    rounds = run["rounds"]
    numbers = [record["round"] for record in rounds]
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(8, 6), dpi=120)
    # Of a few rounds, or a single one, a line alone shows little or nothing.
    marker = "o" if len(rounds) <= FEW_ROUNDS else ""
    top.plot(numbers, [record["test_accuracy"] for record in rounds], color=ACCURACY, marker=marker)
    top.set_ylabel("test accuracy")
    top.grid(alpha=0.3)
    summary = run["summary"]
    top.set_title(
        f"{run['task']}, scheme {run['scheme']}, {run['clients']} clients: "
        f"accuracy {summary['final_accuracy']:.4f} for {summary['energy_j']:.3g} J"
    )
    for name, color, label in (
        ("downlink_bits", DOWN, "downlink"),
        ("uplink_bits", UP, "uplink"),
    ):
        values = [record[name] for record in rounds]
        bottom.plot(numbers, values, color=color, label=label, marker=marker)
    bottom.set_ylabel("mean bits per value")
    bottom.set_xlabel("round")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    bottom.set_ylim(bottom=0)
    bottom.legend()
    bottom.grid(alpha=0.3)
    figure.tight_layout()
    path = folder / "run.png"
    figure.savefig(path)
    plt.close(figure)
    return path
