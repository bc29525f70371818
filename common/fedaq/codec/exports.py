"""The names of `fedaq.codec`, imported when they are used: most who use its modules do without."""

from importlib import import_module
from typing import Any

_HOMES = {
    "CodecError": "fedaq.errors",
    "decode": "fedaq.codec.archive",
    "encode": "fedaq.codec.archive",
    "estimate": "fedaq.codec.archive",
}


def __getattr__(name: str) -> Any:
    """Return what a name of `fedaq.codec` stands for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedaq.codec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
