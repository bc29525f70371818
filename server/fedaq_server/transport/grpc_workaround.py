"""A gRPC server that outlives calls of methods which it does not have, and the end of its loop.

The asyncio server of grpcio takes the name of such a method for UTF-8 text. A name that is
none ends its loop, and with it the server: one request of anybody. Methods that are
registered are matched before that, as bytes. So this server answers all other calls itself,
without a look at their names.

Where a call is waited for, gRPC writes it into memory of the task that waits, or zeros when the
server stops. grpcio frees that memory with the task. When all tasks of a loop are cancelled while
a server is up, as `asyncio.run` does at its end, gRPC writes into what lies there by then, and
the process crashes. So nobody can cancel these tasks here; they end when the server has stopped.

It has to reach for parts of grpcio that are not public. All of them are looked up here, once;
with a version that lacks one there is the ordinary server, and a warning.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from fedaq.process.logs import event

log = logging.getLogger(__name__)

Options = Sequence[tuple[str, Any]]

_NAME = "an unknown method"
# Parts of `grpc._cython.cygrpc`, and the parameters of those that are called.
_PARTS: dict[str, tuple[str, ...] | None] = {
    "AioServer": None,
    "AioServer._request_call": ("self",),
    # Where this is, registered methods are waited for by themselves, and `_request_call` only
    # for the others.
    "AioServer._make_request_call_future": ("self", "method_bytes"),
    "_MethodResolver": None,
    "_handle_rpc": (
        "method_name", "method_resolver", "interceptors", "rpc_state", "loop",
        "concurrency_exceeded",
    ),
    "_schedule_rpc_coro": ("rpc_coro", "rpc_state", "loop", "method_name"),
    "get_working_loop": (),
}  # fmt: skip
# What the constructor of `grpc.aio._server.Server` sets, and its other methods read.
_ATTRIBUTES = ("_loop", "_server")
# Tasks that wait for a call, of all servers.
_waiting: set["asyncio.Future[Any]"] = set()


def _check(cygrpc: Any, server: type) -> None:
    """Look for everything that is used.

    Raises
    ------
    AttributeError
        If a part is missing.
    TypeError
        If it takes other parameters.
    """
    for name, parameters in _PARTS.items():
        part = cygrpc
        for attribute in name.split("."):
            part = getattr(part, attribute)
        if parameters is not None:
            found = tuple(inspect.signature(part).parameters)
            if found != parameters:
                raise TypeError(f"{name} takes ({', '.join(found)})")
    for attribute in _ATTRIBUTES:
        if attribute not in server.__init__.__code__.co_names:  # type: ignore[misc]
            raise AttributeError(f"grpc.aio.Server has no {attribute}")


def _forget(waiting: "asyncio.Future[Any]") -> None:
    _waiting.discard(waiting)
    if not waiting.cancelled():
        waiting.exception()  # or asyncio would complain where nobody waits for the call any more


def _robust() -> Callable[[Options], Any]:
    """Return the class of the server.

    Raises
    ------
    ImportError, AttributeError, TypeError, ValueError
        If grpcio is not as it must be.
    """
    from grpc._cython import cygrpc
    from grpc.aio import _server

    _check(cygrpc, _server.Server)

    class Calls(cygrpc.AioServer):  # type: ignore[misc]
        """The calls of a server."""

        def _make_request_call_future(self, method_bytes: bytes | None) -> Any:
            """Wait for a call in a task that outlives whoever waits for it."""
            waiting = super()._make_request_call_future(method_bytes)
            asyncio._unregister_task(waiting)
            _waiting.add(waiting)
            waiting.add_done_callback(_forget)
            return asyncio.shield(waiting)

        async def _request_call(self) -> Any:
            """Answer calls of methods that are not registered; return none of them."""
            loop = asyncio.get_running_loop()
            nobody = cygrpc._MethodResolver([], {})
            answers = set()
            while True:
                call = await super()._request_call()
                answer = cygrpc._handle_rpc(_NAME, nobody, (), call, loop, False)
                task = loop.create_task(cygrpc._schedule_rpc_coro(answer, call, loop, _NAME))
                answers.add(task)
                task.add_done_callback(answers.discard)

    class Server(_server.Server):
        def __init__(self, options: Options) -> None:
            self._loop = cygrpc.get_working_loop()
            self._server = Calls(self._loop, None, (), None, tuple(options), None)

    return Server


_Server: Callable[[Options], Any] | None
try:
    _Server, _problem = _robust(), ""
except (ImportError, AttributeError, TypeError, ValueError) as error:
    _Server, _problem = None, str(error)


def robust_server(options: Options) -> Any:
    """Return a `grpc.aio.Server` of which every method must be registered.

    Parameters
    ----------
    options : sequence of (str, Any)
        As `grpc.aio.server` takes them.
    """
    problem = _problem
    if _Server is not None:
        try:
            return _Server(options)
        except TypeError as error:  # its constructor says nothing of its parameters beforehand
            problem = str(error)
    log.warning(
        "grpcio %s: %s; a request for a method whose name is not UTF-8 can end this server",
        grpc.__version__, problem,
        extra=event("unknown grpcio", version=grpc.__version__, detail=problem),
    )  # fmt: skip
    return grpc.aio.server(options=options)
