"""A coroutine on a thread and an event loop of its own, for programs that have theirs.

Who waits for it may be a script, a notebook whose loop runs already, or a coroutine. Its signals,
its loop and the executor of that loop stay as they are.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Call = Callable[[], object]
Tell = Callable[..., None]

# Windows lets no signal interrupt a wait without end.
_LOOK_S = 1.0


class Background(Generic[T]):
    """One coroutine, carried out once.

    Parameters
    ----------
    work : callable
        ``work(tell)`` returns the coroutine. ``tell(function, *arguments)`` lets a call be made
        where the result is waited for, after all that were told before it.
    """

    def __init__(self, work: Callable[[Tell], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._outcome: Future[T] = Future()
        self._deliver: Callable[[Call | None], object] = lambda call: None
        self._stopped = threading.Event()
        self._cancel: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._carry_out, name="fedaq")

    def stop(self) -> None:
        """Cancel it, from any thread; nothing happens if it is over."""
        self._stopped.set()
        if self._cancel is not None:
            with suppress(RuntimeError):  # its loop is closed
                self._cancel()

    def result(self) -> T:
        """Wait for the result; an interrupt stops the work first.

        Raises
        ------
        asyncio.CancelledError
            If it was stopped.
        Exception
            What the work raised, or a call that it told.
        """
        calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._deliver = calls.put
        try:
            self._thread.start()
            while True:
                try:
                    call = calls.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                if call is None:
                    break
                call()
        except BaseException:
            self.stop()
            raise
        finally:
            self._thread.join()
        return self._outcome.result()

    async def aresult(self) -> T:
        """Wait for the result on a running event loop; a cancellation stops the work first.

        Raises
        ------
        asyncio.CancelledError
            If it was stopped, or who waits was cancelled.
        Exception
            As `result`.
        """
        calls: asyncio.Queue[Call | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._deliver = lambda call: loop.call_soon_threadsafe(calls.put_nowait, call)
        try:
            self._thread.start()
            while (call := await calls.get()) is not None:
                call()
        except BaseException:
            self.stop()
            while await calls.get() is not None:
                pass
            raise
        finally:
            self._thread.join()  # it has nothing left to do
        return self._outcome.result()

    def _carry_out(self) -> None:
        try:
            self._outcome.set_result(asyncio.run(self._main()))
        except BaseException as error:
            self._outcome.set_exception(error)
        finally:
            with suppress(RuntimeError):  # the loop of who waited is closed
                self._deliver(None)

    async def _main(self) -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._cancel = partial(loop.call_soon_threadsafe, task.cancel)
        if self._stopped.is_set():
            raise asyncio.CancelledError
        return await self._work(self._tell)

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        self._deliver(partial(function, *arguments))
