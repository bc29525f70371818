"""A gRPC server that outlives calls of methods which it does not have.

The asyncio server of grpcio takes the name of such a method for UTF-8 text. A name that is
none ends its loop, and with it the server: one request of anybody. Methods that are
registered are matched before that, as bytes. So this server answers all other calls itself,
without a look at their names. It has to reach for parts of grpcio that are not public; with
a version that lacks them there is the ordinary server, and a warning.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server

from fedaq.process.logs import event

log = logging.getLogger(__name__)

_NAME = "an unknown method"
_PARTS = ("_request_call", "_make_request_call_future")


class _Calls(cygrpc.AioServer):  # type: ignore[misc]
    """The calls of a server."""

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


class _Server(_server.Server):
    def __init__(self, options: Sequence[tuple[str, Any]]) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Calls(self._loop, None, (), None, tuple(options), None)


def robust_server(options: Sequence[tuple[str, Any]]) -> Any:
    """Return a `grpc.aio.Server` of which every method must be registered.

    Parameters
    ----------
    options : sequence of (str, Any)
        As `grpc.aio.server` takes them.
    """
    try:
        if all(hasattr(cygrpc.AioServer, part) for part in _PARTS):
            return _Server(options)
    except TypeError:
        pass
    log.warning(
        "grpcio %s: a request for a method whose name is not UTF-8 can end this server",
        grpc.__version__, extra=event("unknown grpcio", version=grpc.__version__),
    )  # fmt: skip
    return grpc.aio.server(options=options)
