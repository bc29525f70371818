"""The two names that users import, each found when it is asked for."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


def __getattr__(name: str) -> Any:
    """Bring one of the two, whose modules import Flower."""
    if name == "coded":
        return _brought(name, lambda: import_module("fedaq.flower.mod").coded, "client")
    if name == "Coded":
        found = entry_points(group="fedaq.flower", name=name)
        if not found:
            raise ImportError(
                "fedaq.flower.Coded comes with the server: pip install 'fedaq[server,flower]'"
            )
        return _brought(name, next(iter(found)).load, "server")
    raise AttributeError(f"module 'fedaq.flower' has no attribute {name!r}")


def _brought(name: str, load: Any, side: str) -> Any:
    try:
        return load()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ImportError(
            f"fedaq.flower.{name} needs {package}: pip install 'fedaq[{side},flower]'"
        ) from None
