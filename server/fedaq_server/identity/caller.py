"""Who calls, as far as it is proved, and how one is told that it may not join."""

from collections.abc import Callable
from typing import Any

import grpc

from fedaq.errors import printable

Identify = Callable[[Any], str | None]


class JoinRefusedError(Exception):
    """A client may not join, or may not stay; the sentence is for its operator and ours.

    It may quote what the client sent, so it is cut to what fits an HTTP/2 trailer and
    cleared of what would steer a terminal. Where `told` is given, the client learns only that.
    """

    def __init__(self, code: grpc.StatusCode, sentence: str, told: str | None = None) -> None:
        shown = printable(sentence)
        super().__init__(shown)
        self.code = code
        self.told = shown if told is None else told


def nobody_in_particular(context: Any) -> None:
    """Let a caller take any name."""
