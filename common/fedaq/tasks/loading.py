"""Tasks by their names."""

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fedaq.errors import FedaqError, UserError
from fedaq.tasks.task import Task

AnyTask = str | Task | Callable[[Path | None], Task]

BUILT_IN = {
    "digits": "fedaq.tasks.digits:task",
    "fashion-mnist": "fedaq.tasks.fashion_mnist:mlp",
    "fashion-mnist-cnn": "fedaq.tasks.fashion_mnist:cnn",
    "images": "fedaq.tasks.images:task",
    "cifar": "fedaq.tasks.cifar:task",
    "cifar-group": "fedaq.tasks.cifar:group",
    "regression": "fedaq.tasks.diabetes:task",
    "text": "fedaq.tasks.text:task",
}


def load_task(name: str, data: Path | None) -> Task:
    """Return a task: built in, brought by a package, or named ``package.module:attribute``.

    Parameters
    ----------
    name : str
    data : Path, optional
        The ``--data`` path, for a task whose model depends on the data.

    Raises
    ------
    UserError
        If there is no such task.
    """
    target = place_of(name, "task", BUILT_IN)
    if data is not None and not data.exists():
        raise UserError(f"--data {data}: there is no such file or folder")
    return made_task(load_attribute(target, "task"), name, data)


def task_of(given: AnyTask, data: Path | None) -> Task:
    """Return what a program gives as a task: a name, a task, or a function that returns one.

    Raises
    ------
    UserError
        If it is none.
    """
    return (
        load_task(given, data) if isinstance(given, str) else made_task(given, name_of(given), data)
    )


def name_of(given: Any) -> str:
    """Return the name of a task, or of a function as ``package.module:attribute``."""
    if isinstance(given, str):
        return given
    if isinstance(given, Task):
        return given.name
    # An object that can be called has no name of its own.
    named = given if hasattr(given, "__qualname__") else type(given)
    return f"{given.__module__}:{named.__qualname__}"


def made_task(given: Any, name: str, data: Path | None) -> Task:
    """Return what was given as a task: a task, or a function of the data that returns one.

    Raises
    ------
    UserError
        If it is neither.
    """
    try:
        task = given(data) if callable(given) else given
    except FedaqError:
        raise
    except Exception as error:
        raise UserError(f"task {name}: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"task {name!r} is a {type(task).__name__}, not a fedaq.tasks.Task")
    return task


def place_of(name: str, kind: str, built_in: Mapping[str, str]) -> str:
    """Return the ``package.module:attribute`` that a name of a task or a scheme stands for.

    A package brings names by entry points of the group ``fedaq.tasks`` or ``fedaq.schemes``.

    Raises
    ------
    UserError
        If nobody knows the name.
    """
    if name in built_in:
        return built_in[name]
    if ":" in name:
        return name
    brought = {entry.name: entry.value for entry in entry_points(group=f"fedaq.{kind}s")}
    if name in brought:
        return brought[name]
    others = f"; packages here bring: {', '.join(sorted(brought))}" if brought else ""
    raise UserError(
        f"{kind} {name!r} is unknown; built in: {', '.join(built_in)}{others}; "
        f"your own: --{kind} package.module:attribute"
    )


def load_attribute(target: str, kind: str) -> Any:
    """Import ``package.module:attribute``, from the working directory too.

    Raises
    ------
    UserError
        If there is no such module or attribute.
    """
    module_name, _, attribute = target.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{kind} {target}: there is no module {error.name!r}") from error
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{kind} {target}: importing {module_name} failed: {problem}") from error
    if not hasattr(module, attribute):
        raise UserError(f"{kind} {target}: {module_name} has no {attribute!r}")
    return getattr(module, attribute)
