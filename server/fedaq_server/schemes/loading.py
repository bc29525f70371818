"""Schemes by their names."""

from collections.abc import Callable
from typing import cast

from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq.tasks import load_attribute, place_of
from fedaq_server.schemes.scheme import Scheme

BUILT_IN = {
    "fp32": "fedaq_server.schemes.fixed:fp32",
    "fixed": "fedaq_server.schemes.fixed:fixed",
    "adaquantfl": "fedaq_server.schemes.adaquantfl:adaquantfl",
    "dadaquant": "fedaq_server.schemes.dadaquant:dadaquant",
    "feddq": "fedaq_server.schemes.feddq:feddq",
    "stc": "fedaq_server.schemes.sparse:stc",
    "topk": "fedaq_server.schemes.sparse:topk",
    "fedaq": "fedaq_server.schemes.fedaq:fedaq",
}

_PARTS = ("plan", "grant", "learn")


def load_scheme(settings: Settings, build: Callable[[Settings], Scheme] | None = None) -> Scheme:
    """Return the scheme that `build` returns, or else the one that the settings name.

    Raises
    ------
    UserError
        If there is no such scheme, or what is named does not build one.
    """
    name = settings.scheme
    scheme = (build or _builder(name))(settings)
    missing = [part for part in _PARTS if not callable(getattr(scheme, part, None))]
    if missing:
        raise UserError(
            f"scheme {name!r} returned a {type(scheme).__name__} without {', '.join(missing)}; "
            f"a scheme has {', '.join(_PARTS)}"
        )
    return scheme


def _builder(name: str) -> Callable[[Settings], Scheme]:
    build = load_attribute(place_of(name, "scheme", BUILT_IN), "scheme")
    if not callable(build):
        raise UserError(
            f"scheme {name!r} is a {type(build).__name__}; "
            "a function that takes the settings and returns the scheme is needed"
        )
    return cast("Callable[[Settings], Scheme]", build)
