"""What a scheme has learned, kept between two rounds: the fields of a dataclass as JSON."""

from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter

from fedaq.errors import UserError

S = TypeVar("S")


def state_of(scheme: object) -> dict[str, Any] | None:
    """Return a scheme's state between two rounds as JSON has it, None if it cannot be kept."""
    if not is_dataclass(scheme) or isinstance(scheme, type):
        return None
    return {
        name: adapter.dump_python(getattr(scheme, name), mode="json")
        for name, adapter in _state_fields(type(scheme)).items()
    }


def restored(fresh: S, state: dict[str, Any] | None) -> S:
    """Return a scheme in a state that was kept.

    Raises
    ------
    UserError
        If the state could not be kept.
    """
    if state is None or not is_dataclass(fresh) or isinstance(fresh, type):
        raise UserError(
            f"the scheme is a {type(fresh).__name__}, which is no dataclass: what it had learned "
            "is not kept, and its runs cannot be resumed"
        )
    known = _state_fields(type(fresh))
    # What another version had learned is left out, if this one learns something else.
    values = {
        name: known[name].validate_python(value) for name, value in state.items() if name in known
    }
    return cast(S, replace(fresh, **values))


@cache
def _state_fields(kind: type[Any]) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind)
    return {
        field.name: TypeAdapter(hints[field.name])
        for field in fields(kind)
        if not field.name.startswith("_")
    }
