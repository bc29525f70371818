"""The page over HTTP: its files, the events of the run, and past runs. All of it only reads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fedaq_server.dashboard.assets import Assets, compressed, sent, takes_gzip
from fedaq_server.dashboard.guard import Guard
from fedaq_server.dashboard.hub import Hub, squeezed
from fedaq_server.dashboard.live import compact
from fedaq_server.dashboard.runs import PastRuns

# People who may watch at once; each holds a connection and what was last sent to it.
MOST_VIEWERS = 200


class Site:
    """The routes of the page.

    Parameters
    ----------
    hub : Hub, optional
        None where only past runs are shown.
    runs : PastRuns
    """

    def __init__(self, hub: Hub | None, runs: PastRuns) -> None:
        self._hub = hub
        self._runs = runs
        self.assets = Assets()

    def app(self, guard: Guard, on_begin: Callable[[], None]) -> ASGIApp:
        """Return the site as an application; `on_begin` is told when its loop runs."""

        @asynccontextmanager
        async def begun(app: Starlette) -> AsyncIterator[None]:
            if self._hub is not None:
                self._hub.loop = asyncio.get_running_loop()
            on_begin()
            yield

        routes = [
            Route("/", self.index),
            Route("/static/{version}/{name:path}", self.static),
            Route("/events", self.events),
            Route("/api/runs", self.past_runs),
            Route("/api/runs/{name:path}", self.past_run),
            Route("/login", guard.login, methods=["POST"]),
        ]
        return guard.around(Starlette(routes=routes, lifespan=begun), self.assets)

    async def index(self, request: Request) -> Response:
        """Return the page."""
        return sent(request, self.assets.page if self._hub else self.assets.past)

    async def static(self, request: Request) -> Response:
        """Return a file of the page, which never changes under its address."""
        asset = self.assets.files.get(request.path_params["name"])
        if asset is None or request.path_params["version"] != self.assets.version:
            return Response("no such file", 404)
        return sent(request, asset, {"Cache-Control": "public, max-age=31536000, immutable"})

    async def events(self, request: Request) -> Response:
        """Return the events of the run, without an end until it is over."""
        if self._hub is None:
            return Response("no run goes on here", 404)
        if self._hub.viewers >= MOST_VIEWERS:
            return Response(f"{MOST_VIEWERS} people are watching already; try again later", 503)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        asked = request.query_params.get("clients", "0")
        first = int(asked) if asked.isdecimal() and len(asked) < 8 else 0
        messages = self._hub.events(first)
        if not takes_gzip(request):
            return StreamingResponse(messages, media_type="text/event-stream")
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return StreamingResponse(squeezed(messages), 200, headers, "text/event-stream")

    # Not coroutines: Starlette carries them out on threads, for they read files.
    def past_runs(self, request: Request) -> Response:
        """Return the list of past runs."""
        return compressed(request, compact(self._runs.summaries()), "application/json")

    def past_run(self, request: Request) -> Response:
        """Return one past run."""
        run = self._runs.run(request.path_params["name"])
        if run is None:
            return Response("no such run", 404)
        return compressed(request, compact(run), "application/json")
