"""Settings from all their sources, the later over the earlier, and what is wrong with them."""

import copy
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fedaq.errors import UserError
from fedaq.settings.run import Settings

ENVIRONMENT_PREFIX = "FEDAQ_"
# A client's token, from where `ps` does not show it.
TOKEN_VARIABLE = "FEDAQ_TOKEN"
NOT_SETTINGS = frozenset({"FEDAQ_TRACEBACK", TOKEN_VARIABLE})
# What may be another's when a run goes on.
NOT_OF_A_RUN = frozenset({"network", "client", "device", "threads"})
# Flags that have not the name of their setting.
FLAGS = {"start_from": "--from"}

Layer = dict[str, Any]


def flag_of(key: str) -> str:
    """Return the flag that sets what this dotted name stands for."""
    return FLAGS.get(key) or "--" + key.rpartition(".")[2].removesuffix("_s").replace("_", "-")


def load_settings(
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    keywords: Mapping[str, Any] | None = None,
    begun: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge every source of settings, the later over the earlier, and validate.

    Parameters
    ----------
    config : Path, optional
        A TOML file.
    environment : mapping, optional
        Defaults to the process's; variables that begin with ``FEDAQ_`` are settings.
    flags : mapping, optional
        Dotted names to values; None is left out.
    assignments : iterable of str
        ``key=value`` as given to ``--set``.
    keywords : mapping, optional
        As `flags`, given by a program.
    begun : mapping, optional
        The settings with which a run has begun: they come first, and only those of the sections
        ``network`` and ``client``, `device` and `threads` may change.

    Raises
    ------
    UserError
        If the file cannot be read or a setting is unknown, impossible or another than the run
        has begun with; the message names the source.
    """
    merged: Layer = {}
    sources: dict[str, str] = {}
    if begun is not None:
        # What an older version had no setting for, it did as the default says.
        merged = Settings().model_dump(mode="json")
        _merge(merged, dict(begun), {}, "")
        begun = copy.deepcopy(merged)
    if config is not None:
        _merge(merged, _read_toml(config), sources, str(config))
    variables = os.environ if environment is None else environment
    for name, text in sorted(variables.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _merge(merged, _nested(key, _value(text)), sources, f"environment {name}")
    for key, value in (flags or {}).items():
        if value is not None:
            _merge(merged, _nested(key, value), sources, flag_of(key))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {assignment}: write it as key=value")
        _merge(merged, _nested(key.strip(), _value(text.strip())), sources, f"--set {assignment}")
    for key, value in (keywords or {}).items():
        _merge(merged, _nested(key, value), sources, f"{key}={value!r}")
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise UserError(_explain(error, sources)) from None
    if begun is not None:
        _refuse_changes(settings.model_dump(mode="json"), begun, sources)
    return settings


def _refuse_changes(
    now: Mapping[str, Any], begun: Mapping[str, Any], sources: Mapping[str, str], at: str = ""
) -> None:
    for key, value in now.items():
        dotted = f"{at}{key}"
        if dotted in NOT_OF_A_RUN or value == begun[key]:
            continue
        if isinstance(value, dict):
            _refuse_changes(value, begun[key], sources, f"{dotted}.")
        raise UserError(
            f"{sources[dotted]}: the run has begun with {dotted} = {begun[key]}, and goes on "
            "with it; leave it out, or begin another run"
        )


def flattened(settings: Mapping[str, Any], at: str = "") -> Layer:
    """Return settings in sections as one mapping from dotted names."""
    flat: Layer = {}
    for name, value in settings.items():
        inner = value if isinstance(value, dict) else None
        flat.update({at + name: value} if inner is None else flattened(inner, f"{at}{name}."))
    return flat


def _read_toml(path: Path) -> Layer:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def _value(text: str) -> Any:
    """Read a value as TOML would; what is no TOML value is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(key: str, value: Any) -> Layer:
    *sections, name = key.split(".")
    layer = {name: value}
    for section in reversed(sections):
        layer = {section: layer}
    return layer


def _merge(into: Layer, layer: Layer, sources: dict[str, str], source: str, at: str = "") -> None:
    for key, value in layer.items():
        dotted = f"{at}{key}"
        if isinstance(value, dict):
            below = into.get(key)
            if not isinstance(below, dict):
                below = into[key] = {}
            _merge(below, value, sources, source, f"{dotted}.")
        else:
            into[key] = value
        sources[dotted] = source


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    dotted = ".".join(path)
    # What is wrong with a whole section may come from any source that set a part of it.
    touched = (sources[key] for key in sources if f"{key}.".startswith(f"{dotted}."))
    source = " and ".join(dict.fromkeys(touched)) or "settings"
    if problem["type"] == "extra_forbidden":
        known = _names(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{source}: {dotted} is not a setting; {hint}"
    if problem["type"] == "model_type":
        return f"{source}: {dotted} is a section; set the names in it: {', '.join(_names(path))}"
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    shown = "" if isinstance(problem["input"], dict | BaseModel) else f" (got {problem['input']!r})"
    return f"{source}: {dotted}: {reason}{shown}" if dotted else f"{source}: {reason}{shown}"


def _names(path: list[str]) -> list[str]:
    section: type[BaseModel] = Settings
    for part in path:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type)
        section = annotation
    return list(section.model_fields)
