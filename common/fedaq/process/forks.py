"""Processes that a task forks in the midst of a run, such as those of a ``DataLoader``."""

import os
import signal
import sys
from contextlib import suppress
from functools import cache

from fedaq.process.stopping import STOP_SIGNALS

_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"


@cache
def allow() -> None:
    """Let a task fork while gRPC's threads and the event loop work; before gRPC is imported.

    A child that asks gRPC for nothing lives well without gRPC. Its handlers at a fork would look
    after locks and threads that the child has not, and it would die of SIGSEGV.
    """
    os.environ[_SUPPORT] = "0"
    if hasattr(os, "register_at_fork"):  # nothing forks on Windows
        os.register_at_fork(after_in_child=_hear_own_signals)


def allow_in_a_program() -> None:
    """Do so in a program of others, if there is no gRPC yet; its signals stay its own matter."""
    if "grpc" not in sys.modules:
        os.environ.setdefault(_SUPPORT, "0")


def _hear_own_signals() -> None:
    """Die of a stop signal, which would else be lost here, and told to the parent's event loop."""
    with suppress(ValueError):  # not the main thread of the main interpreter
        signal.set_wakeup_fd(-1)
        for number in STOP_SIGNALS:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
