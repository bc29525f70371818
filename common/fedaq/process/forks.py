"""Processes that a task forks in the midst of a run, such as those of a ``DataLoader``."""

import os
import signal
import sys
import threading
from contextlib import suppress
from functools import cache
from typing import Any

from fedaq.process.stopping import STOP_SIGNALS

_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"
# With what Windows lacks, where nothing forks.
_posix: Any = signal
# The signals that a thread which forks had blocked before.
_blocked = threading.local()


@cache
def allow() -> None:
    """Let a task fork while gRPC's threads and the event loop work; before gRPC is imported.

    A child that asks gRPC for nothing lives well without gRPC. Its handlers at a fork would look
    after locks and threads that the child has not, and it would die of SIGSEGV.
    """
    os.environ[_SUPPORT] = "0"
    if hasattr(os, "register_at_fork"):  # nothing forks on Windows
        os.register_at_fork(
            before=_hold_signals, after_in_parent=_release_signals,
            after_in_child=_hear_own_signals,
        )  # fmt: skip


def allow_in_a_program() -> None:
    """Do so in a program of others, if there is no gRPC yet; its signals stay its own matter."""
    if "grpc" not in sys.modules:
        os.environ.setdefault(_SUPPORT, "0")


def _hold_signals() -> None:
    """Let stop signals wait: a child that has just begun would tell the parent's event loop."""
    _blocked.before = _posix.pthread_sigmask(_posix.SIG_BLOCK, STOP_SIGNALS)


def _release_signals() -> None:
    _posix.pthread_sigmask(_posix.SIG_SETMASK, _blocked.before)


def _hear_own_signals() -> None:
    """Die of a stop signal, which would else be lost here, and told to the parent's event loop."""
    with suppress(ValueError):  # not the main thread of the main interpreter
        signal.set_wakeup_fd(-1)
        for number in STOP_SIGNALS:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
    _release_signals()
