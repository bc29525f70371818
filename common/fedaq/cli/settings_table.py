"""Every setting there is: its name, its default and what it means."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from fedaq.errors import UserError
from fedaq.process.terminal import console
from fedaq.settings import Settings, flattened, load_settings

_VALUE_COLUMNS = 9


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes
    ----------
    name : str
        Dotted, as ``--set`` takes it.
    default : Any
    meaning : str
        May be empty: some names say all.
    section : str
        What its section is about.
    """

    name: str
    default: Any
    meaning: str
    section: str


def all_settings(section: type[BaseModel] = Settings, at: str = "") -> Iterator[Setting]:
    """Yield the settings of a section, then those of the sections in it."""
    about = (section.__doc__ or "").partition("\n")[0].replace("``", "")
    inner = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner[name] = kind
        else:
            yield Setting(f"{at}{name}", field.default, field.description or "", about)
    for name, kind in inner.items():
        yield from all_settings(kind, f"{at}{name}.")


def show(word: str | None, *, config: Path | None, assignments: list[str]) -> None:
    """Print settings with the values they have.

    Parameters
    ----------
    word : str, optional
        A section, or what occurs in a name or a meaning.
    config : Path, optional
    assignments : list of str
        As of `load_settings`.

    Raises
    ------
    UserError
        If the word fits none, or what is given is no setting.
    """
    settings = load_settings(config=config, assignments=assignments)
    now = flattened(settings.model_dump(mode="json"))
    found = [*all_settings()] if word is None else _chosen(word)
    width = max(len(setting.name) for setting in found)
    for section, members in groupby(found, lambda setting: setting.section):
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=width, no_wrap=True)
        table.add_column(min_width=_VALUE_COLUMNS, overflow="fold")
        table.add_column()
        for setting in members:
            value = now[setting.name]
            style = "bold" if value != _json(setting.default) else ""
            table.add_row(setting.name, escape(_shown(value)), escape(setting.meaning), style=style)
        console.print(f"\n[italic]{escape(section)}[/italic]")
        console.print(table)


def _chosen(word: str) -> list[Setting]:
    settings = [*all_settings()]
    chosen = [setting for setting in settings if setting.name.startswith(f"{word}.")] or [
        setting
        for setting in settings
        if word.lower() in f"{setting.name} {setting.meaning}".lower()
    ]
    if not chosen:
        raise UserError(f"no setting has {word!r} in its name or meaning")
    return chosen


def _json(default: Any) -> Any:
    return str(default) if isinstance(default, Path) else default


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
