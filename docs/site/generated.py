"""Pages of the site that are made from the code: settings, commands, radios, metrics."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from fedaq.cli.app import application
from fedaq.cli.settings_table import all_settings
from fedaq.energy.radios import PRESETS
from fedaq.settings import Settings
from fedaq_server.metrics import Metrics

ABOUT_SETTINGS = """# Settings

One name everywhere: `energy.budget_j` is `budget_j` under `[energy]` in a TOML file (`--config`),
`FEDAQ_ENERGY__BUDGET_J` in the environment and `--set energy.budget_j=2` on the command line. The
later of these wins. An unknown name or an impossible value ends the command with one line, which
names the source. `fedaq settings WORD` finds settings by a word.

A dash stands for a default that the meaning tells in brackets.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that are files."""
    pages = {
        "settings": settings_page(),
        "commands": commands_page(),
        "radios": radios_page(),
        "metrics": metrics_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def settings_page() -> str:
    """Return a table for every section."""
    schema = Settings.model_json_schema()
    lines = [ABOUT_SETTINGS]
    for about, members in groupby(all_settings(), lambda setting: setting.section):
        settings = list(members)
        section = settings[0].name.rpartition(".")[0]
        lines.append(f"\n## {section or 'Of the run'}\n\n{about}\n")
        lines.append("| setting | default | may be | meaning |\n|---|---|---|---|")
        for setting in settings:
            default = "-" if setting.default is None else f"`{_toml(setting.default)}`"
            may_be = "; ".join(_kinds(_property(schema, setting.name)))
            lines.append(f"| `{setting.name}` | {default} | {may_be} | {setting.meaning} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return what ``--help`` says of each command."""
    command = typer.main.get_command(application())
    context = typer.Context(command, info_name="fedaq")
    return get_docs_for_click(obj=command, ctx=context, name="fedaq", title="Commands")


def radios_page() -> str:
    """Return what a megabit costs with each radio, and why."""
    lines = ["# Radios\n\nThe presets of `energy.radio`, as `fedaq radio` prints them.\n"]
    lines.append("| radio | a bit is | power, W | rate, kbit/s | J/Mbit | source |")
    lines.append("|---|---|---|---|---|---|")
    for name, radio in PRESETS.items():
        ways = {"sent up": radio.uplink, "received": radio.receive, "sent down": radio.downlink}
        for way, activity in ways.items():
            figures = (activity.power_w, activity.rate_bps / 1e3, activity.j_per_bit * 1e6)
            cells = (f"`{name}`", way, *(f"{figure:.4g}" for figure in figures), activity.source)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Return every series that a server with a budget has for Prometheus."""
    lines = ["# Metrics\n\nWhat `/metrics` of a server says, with `--metrics-port`.\n"]
    lines.append("| metric | type | meaning |\n|---|---|---|")
    for family in Metrics(budget_j=1.0).registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        lines.append(f"| `{name}` | {family.type} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def _toml(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _property(schema: dict[str, Any], name: str) -> dict[str, Any]:
    *sections, last = name.split(".")
    at = schema
    for section in sections:
        reference = at["properties"][section]["$ref"]
        at = schema["$defs"][reference.rpartition("/")[2]]
    found: dict[str, Any] = at["properties"][last]
    return found


def _kinds(found: dict[str, Any]) -> Iterator[str]:
    """Say what values a setting takes: its type, and its bounds."""
    for kind in found.get("anyOf", [found]):
        if "enum" in kind:
            yield ", ".join(f"`{value}`" for value in kind["enum"])
        elif kind["type"] != "null":
            names = {"integer": "a whole number", "boolean": "`true`, `false`", "string": "text"}
            words = [names.get(kind["type"], f"a {kind.get('format', kind['type'])}")]
            for bound, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"),
                                ("maximum", "≤"), ("exclusiveMaximum", "<")):  # fmt: skip
                if bound in kind:
                    words.append(f"{sign} {kind[bound]:,}")
            yield " ".join(words)
