"""What a program asks for: a task, a scheme and a rule, by their names or as they are."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaq.errors import UserError
from fedaq.settings import Settings, load_settings, named
from fedaq.tasks import Task, load_task, made_task
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.rules import Rule
from fedaq_server.run import Run
from fedaq_server.schemes.scheme import Scheme

AnyTask = str | Task | Callable[[Path | None], Task]
BuildScheme = Callable[[Settings], Scheme]


@dataclass(frozen=True)
class Asked:
    """A run that a program asks for.

    Attributes
    ----------
    settings : Settings
    task : Task
    build_scheme : callable, optional
    rule : Rule, optional
        Those that have no name.
    assignments : tuple of str
        The settings that were given, as `--set` takes them.
    """

    settings: Settings
    task: Task
    build_scheme: BuildScheme | None
    rule: Rule | None
    assignments: tuple[str, ...]

    def run(self, ledger: Ledger, on_round: Callable[[RoundRecord], None]) -> Run:
        """Return the run that is recorded in a ledger."""
        return Run(self.settings, ledger, on_round, self.task, self.build_scheme, self.rule)


def asked(
    task: AnyTask,
    options: Mapping[str, Any],
    assignments: Sequence[str] = (),
    begun: Mapping[str, Any] | None = None,
) -> Asked:
    """Return what is asked for.

    Parameters
    ----------
    task : str, Task or callable
    options : mapping
        `fedaq.settings.Options`, where scheme and aggregation may be functions.
    assignments : sequence of str
        More settings, ``key=value``.
    begun : mapping, optional
        Settings with which the run has begun.

    Raises
    ------
    UserError
        If a setting or the task is wrong.
    """
    own = {name: options[name] for name in ("scheme", "aggregation") if callable(options.get(name))}
    keywords = {
        **named(options),
        "task": name_of(task),
        **{name: name_of(given) for name, given in own.items()},
    }
    settings = load_settings(keywords=keywords, assignments=assignments, begun=begun)
    # JSON's strings, booleans and numbers are TOML's.
    given = tuple(f"{name}={json.dumps(value)}" for name, value in keywords.items())
    return Asked(
        settings,
        load_task(task, settings.data)
        if isinstance(task, str)
        else made_task(task, settings.task, settings.data),
        own.get("scheme"),
        own.get("aggregation"),
        (*given, *assignments),
    )


def refuse_what_has_no_name(task: AnyTask, options: Mapping[str, Any]) -> None:
    """Refuse what only this process has, where other processes are to use it.

    Raises
    ------
    UserError
        If the task, the scheme or the rule is such a thing.
    """
    for kind, given in (("task", task), *options.items()):
        alone = callable(given) and _is_of_this_process(name_of(given))
        if isinstance(given, Task) or alone:
            raise UserError(
                f"engine='processes': other processes cannot be given a {kind} that only this one "
                "has; put it into a module and name it, package.module:attribute"
            )


def _is_of_this_process(name: str) -> bool:
    return name.startswith("__main__:") or "<" in name


def name_of(given: Any) -> str:
    """Return the name of a task, or of a function as ``package.module:attribute``."""
    if isinstance(given, str):
        return given
    if isinstance(given, Task):
        return given.name
    # An object that can be called has no name of its own.
    named = given if hasattr(given, "__qualname__") else type(given)
    return f"{given.__module__}:{named.__qualname__}"
