"""How a command ends when a stop signal arrives: soon, whatever it is doing.

Stop signals are SIGINT, SIGTERM and, unless the command began with it ignored (``nohup``), SIGHUP.
"""

import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")

_HANG_UP: Any = getattr(signal, "SIGHUP", None)  # Windows has none
_HEARS_HANG_UP = _HANG_UP is not None and signal.getsignal(_HANG_UP) is not signal.SIG_IGN
STOP_SIGNALS: tuple[signal.Signals, ...] = (
    signal.SIGINT,
    signal.SIGTERM,
    *([_HANG_UP] if _HEARS_HANG_UP else []),
)
# Set for a process whose standard input is a pipe that its parent holds and never writes to.
FOLLOWS_PARENT = "FEDAQ_FOLLOWS_PARENT"
# A local epoch or a test of the model cannot be interrupted; nobody waits for its end.
STOP_GRACE_S = 5.0


class StoppedError(SystemExit):
    """A stop signal arrived; asyncio lets this pass where it would keep an Exception."""

    code: int


def listen() -> None:
    """Let the first stop signal raise `StoppedError` in the main thread; ignore the others."""
    for number in STOP_SIGNALS:
        signal.signal(number, _raise)


def follow_parent() -> None:
    """Stop as by SIGTERM when the parent ends, however it ends, if it asked for that."""
    if os.environ.pop(FOLLOWS_PARENT, None) is None:
        return
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        with suppress(OSError):
            os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def postponed() -> Iterator[None]:
    """Let a stop signal wait until the end of the block; other threads than the main get none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: arrived.append(number))
        for number in STOP_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; a stop signal cancels it, and nothing else that runs beside it.

    Raises
    ------
    StoppedError
        If a stop signal arrived, once the coroutine has ended.
    """
    import asyncio  # a command that only prints its help does without

    from fedaq.process.memory import all_so_far_kept

    codes: list[int] = []

    async def cancelled_by_signals() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            if not codes:
                codes.append(_begin_to_stop(number))
                task.cancel()

        _call_on_signals(asyncio.get_running_loop(), stop)
        return await main

    running = cancelled_by_signals()
    try:
        with all_so_far_kept():
            return asyncio.run(running)
    finally:
        # A signal may have come before they began, and Python would complain.
        running.close()
        main.close()
        if codes:
            raise StoppedError(codes[0])
        listen()


def _call_on_signals(loop: "AbstractEventLoop", stop: Callable[[int], None]) -> None:
    for number in STOP_SIGNALS:
        try:
            loop.add_signal_handler(number, stop, number)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda number, frame: loop.call_soon_threadsafe(stop, number))


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise StoppedError(_begin_to_stop(number))


def _begin_to_stop(number: int) -> int:
    """Set a limit to how long the stop may take, and return the exit code."""
    code = 128 + number
    for other in STOP_SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    patience = threading.Timer(STOP_GRACE_S, _give_up, [code])
    patience.daemon = True
    patience.start()
    return code


def _give_up(code: int) -> NoReturn:
    with suppress(OSError):
        os.write(2, b"fedaq: stopped\n")
    os._exit(code)
