"""The names of `fedaq.flower`, whose modules import Flower when they are used."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


def found(name: str) -> Any:
    """Return what a name of `fedaq.flower` stands for.

    Raises
    ------
    ImportError
        If what it needs is not installed.
    AttributeError
        If there is no such name.
    """
    if name == "coded":
        return _brought(name, lambda: import_module("fedaq.flower.mod").coded, "client")
    if name == "Coded":
        brought = entry_points(group="fedaq.flower", name=name)
        if not brought:
            raise ImportError(
                "fedaq.flower.Coded comes with the server: pip install 'fedaq[server,flower]'"
            )
        return _brought(name, next(iter(brought)).load, "server")
    raise AttributeError(f"module 'fedaq.flower' has no attribute {name!r}")


def _brought(name: str, load: Any, side: str) -> Any:
    try:
        return load()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ImportError(
            f"fedaq.flower.{name} needs {package}: pip install 'fedaq[{side},flower]'"
        ) from None
