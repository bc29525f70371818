"""What is logged, and for whom: lines for people, or JSON for machines.

An event is an ordinary log record with a name and fields beside its sentence:
``log.info("%s joined", name, extra=event("client joined", client=name))``.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from fedaq.errors import printable
from fedaq.process import outputs


def event(name: str, **fields: Any) -> dict[str, Any]:
    """Return the ``extra`` of a log record that is an event.

    Parameters
    ----------
    name : str
        The same for every event of its kind.
    **fields
        What JSON can hold; only the JSON lines show them.
    """
    return {"event": name, "fields": fields}


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, event, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(_in_json(line), default=str)


class _LineFormatter(logging.Formatter):
    """Sentences for people; they may quote a peer."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def begin(*, as_json: bool = False, quiet: bool = False) -> None:
    """Choose what this process says from now on; no line is worth its end.

    Parameters
    ----------
    as_json : bool
        Every event as a line of JSON on standard error, and nothing else.
    quiet : bool
        Only warnings and errors, on standard error.
    """
    from rich.console import Console
    from rich.logging import RichHandler

    from fedaq.process.terminal import console

    outputs.go_on_without()
    level = logging.WARNING if quiet or not as_json else logging.INFO
    console.quiet = as_json or quiet
    handler: logging.Handler
    if as_json:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
    else:
        shown = Console(stderr=True, soft_wrap=True) if quiet else console
        handler = RichHandler(console=shown, show_path=False, show_level=False)
        handler.setFormatter(_LineFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Other libraries' chatter is not an event of ours.
    for package in ("fedaq", "fedaq_server", "fedaq_client", "fedaq_relay"):
        logging.getLogger(package).setLevel(level)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_ours_to_mend)


def _is_ours_to_mend(record: logging.LogRecord) -> bool:
    """Leave out what grpcio logs of broken headers, and of streams cut off at a stop."""
    kind = record.exc_info[0] if record.exc_info else None
    cut_off = kind is not None and kind.__name__ == "CancelledError"
    return not (cut_off or str(record.msg).startswith("Invalid encoding on"))


def are_json() -> bool:
    """Tell whether this process writes its log as JSON."""
    return any(isinstance(h.formatter, JsonFormatter) for h in logging.getLogger().handlers)


def _in_json(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {name: _in_json(each) for name, each in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value
