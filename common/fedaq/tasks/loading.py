"""Tasks by their names."""

import importlib
import sys
from pathlib import Path
from typing import Any

from fedaq.errors import FedaqError, UserError
from fedaq.tasks.task import Task

BUILT_IN = {
    "digits": "fedaq.tasks.digits:task",
    "fashion-mnist": "fedaq.tasks.fashion_mnist:mlp",
    "fashion-mnist-cnn": "fedaq.tasks.fashion_mnist:cnn",
    "images": "fedaq.tasks.images:task",
    "cifar": "fedaq.tasks.cifar:task",
    "regression": "fedaq.tasks.diabetes:task",
    "text": "fedaq.tasks.text:task",
}


def load_task(name: str, data: Path | None) -> Task:
    """Return a built-in task, or the one that ``package.module:attribute`` names.

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
    target = BUILT_IN.get(name, name)
    if ":" not in target:
        raise UserError(
            f"task {name!r} is unknown; built in: {', '.join(BUILT_IN)}; "
            "your own: --task package.module:attribute"
        )
    if data is not None and not data.exists():
        raise UserError(f"--data {data}: there is no such file or folder")
    found = load_attribute(target, "task")
    try:
        task = found(data) if callable(found) else found
    except FedaqError:
        raise
    except Exception as error:
        raise UserError(f"task {name}: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"task {name!r} is a {type(task).__name__}, not a fedaq.tasks.Task")
    return task


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
