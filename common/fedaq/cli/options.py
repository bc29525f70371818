"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fedaq.cli import completion

# Sections of the settings that options belong to; the others belong to none.
_SECTIONS = {
    "client": ("server", "name", "partition", "radio", "give_up_after_s"),
    "energy": ("budget", "device_budget", "tariff"),
    "network": (
        "host", "port", "metrics_port", "dashboard_port", "tls", "tokens", "token_file", "insecure",
    ),
}  # fmt: skip
_SETTINGS = {
    option: f"{section}.{option}" for section, options in _SECTIONS.items() for option in options
}


def settings_of(**options: Any) -> dict[str, Any]:
    """Return options by the dotted names of the settings that they give."""
    return {_SETTINGS.get(option, option): value for option, value in options.items()}


Task = Annotated[
    str | None,
    typer.Option(
        help="What is learned: a built-in task or package.module:attribute [digits]",
        autocompletion=completion.task,
    ),
]
Data = Annotated[Path | None, typer.Option(help="Folder of the task's data, if it needs one.")]
Out = Annotated[
    Path | None, typer.Option(help="New folder for the results [runs/TIME-TASK-SCHEME]")
]
Seed = Annotated[int | None, typer.Option(help="Makes the run reproducible [1]")]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Begin with a trained model, the model.safetensors of a run, not with a random one.",
    ),
]
Clients = Annotated[int | None, typer.Option(help="Number of clients [5]")]
Rounds = Annotated[int | None, typer.Option(help="Number of rounds [30]")]
Scheme = Annotated[
    str | None,
    typer.Option(
        help="Who chooses the bits: fp32, fixed, adaquantfl, dadaquant, feddq, stc, topk, "
        "fedaq, or package.module:attribute",
        autocompletion=completion.scheme,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNT",
        help="What the whole run may spend: 8J, 20MB or 3EUR, or several, 8J,20MB [no limit]",
    ),
]
DeviceBudget = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNT",
        help="What each device may spend in the run, or one by its name: 2J,client-3:500mJ "
        "[no limit]",
    ),
]
Tariff = Annotated[
    str | None,
    typer.Option(
        metavar="MONEY",
        help="Of a megabyte, or by radio, 0.5,lte-m:2,wifi:0; budgets of money need it.",
    ),
]
Aggregation = Annotated[
    str | None,
    typer.Option(
        help="How updates become one: mean, median or trimmed_mean [mean]",
        autocompletion=completion.aggregation,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="That trains and tests: auto, cpu, cuda or mps [cpu]")
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Of the processor, for torch; 0: all cores, shared by clients that share the machine "
        "[0 for fedaq client without --partition, else 1]"
    ),
]
DashboardPort = Annotated[
    int | None, typer.Option(help="Port of a page to watch in a browser; 0: any free one [none]")
]
Config = Annotated[Path | None, typer.Option(help="A TOML file of settings.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other setting, for example fixed.uplink_bits=4; fedaq settings lists them.",
        autocompletion=completion.assignment,
    ),
]
JsonLogs = Annotated[
    bool,
    typer.Option("--json-logs", help="One JSON object per event on standard error, nothing else."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but warnings and errors.")]
