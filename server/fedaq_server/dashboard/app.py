"""The page over HTTP: its files, the events of the run, and past runs. All of it only reads."""

import asyncio
import gzip
import hashlib
import hmac
import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedaq_server.dashboard.live import View, changes
from fedaq_server.dashboard.runs import PastRuns

# People who may watch at once; each holds a connection and what was last sent to it.
MOST_VIEWERS = 200
# A line goes to a viewer at least so often, or a proxy on the way might give up.
QUIET_S = 15.0
# When a browser that lost the connection tries again.
RETRY_S = 2.0
# zlib's: what is written as gzip, and a compressor of 32 kB, for every viewer has one.
GZIP, WINDOW_BITS, MEMORY_LEVEL = 16, 12, 5
MOST_LOGIN_BYTES = 1024
COOKIE_AGE_S = 30 * 24 * 3600
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
TYPES = {".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain",
         ".js": "text/javascript", ".mjs": "text/javascript"}  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Hub:
    """The latest view of a run, and who waits for the next.

    Nothing queues up for a viewer: each is told what has changed since what it was told last,
    so one that reads slowly misses what was in between.

    Attributes
    ----------
    viewers : int
        How many there are; the only part that another thread may read.
    """

    def __init__(self) -> None:
        self.viewers = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._view: View | None = None
        self._changed = asyncio.Event()

    def publish(self, view: View) -> None:
        """Show a view, from any thread."""
        assert self.loop is not None
        with suppress(RuntimeError):  # the page has died, and the rounds go on
            self.loop.call_soon_threadsafe(self._show, view)

    def _show(self, view: View) -> None:
        if self.viewers and view != self._view:
            self._view = view
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def events(self, first: int) -> AsyncGenerator[bytes, None]:
        """Yield what one viewer is sent, who sees clients from the place `first` on."""
        self.viewers += 1
        shown: View | None = None
        try:
            yield f"retry: {RETRY_S * 1000:.0f}\n\n".encode()
            while True:
                view, changed = self._view, self._changed
                if view is not None and view is not shown:
                    message = changes(shown, view, first)
                    shown = view
                    if message:
                        yield b"data: " + _json(message) + b"\n\n"
                    if view.status.phase in ("over", "stopped"):
                        return
                try:
                    async with asyncio.timeout(QUIET_S):
                        await changed.wait()
                except TimeoutError:
                    yield b":\n\n"
        finally:
            self.viewers -= 1
            if not self.viewers:
                self._view = None  # who comes next is not to see an old one first


@dataclass(frozen=True)
class Asset:
    """A file of the page, as it is and compressed."""

    content: bytes
    compressed: bytes
    kind: str


class Assets:
    """The files of the page, under an address that changes with what is in them.

    Attributes
    ----------
    files : mapping of str to Asset
        By their paths below `static`.
    version : str
    page, past : Asset
        The page with a run that goes on, and without.
    login, wrong : Asset
        The form for the token, and the same after a wrong one.
    """

    def __init__(self) -> None:
        contents = dict(_contents(files("fedaq_server.dashboard") / "static"))
        digest = hashlib.sha256()
        for name in sorted(contents):
            digest.update(name.encode() + b"\0" + contents[name])
        self.version = digest.hexdigest()[:16]
        place = f"/static/{self.version}".encode()
        page, login = (
            contents.pop(name).replace(b"{static}", place) for name in ("index.html", "login.html")
        )
        self.page = _asset("index.html", page)
        self.past = _asset("index.html", page.replace(b" data-live", b""))
        self.login = _asset("login.html", login)
        self.wrong = _asset("login.html", login.replace(b" hidden", b""))
        self.files: Mapping[str, Asset] = {
            name: _asset(name, content) for name, content in contents.items()
        }


def _contents(folder: Traversable, at: str = "") -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _contents(entry, f"{at}{entry.name}/")
        else:
            found.append((f"{at}{entry.name}", entry.read_bytes()))
    return found


def _asset(name: str, content: bytes) -> Asset:
    ending = name[name.rindex(".") :] if "." in name else ".txt"
    kind = TYPES.get(ending, "text/plain")
    return Asset(content, gzip.compress(content, mtime=0), f"{kind}; charset=utf-8")


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

    def app(self, guard: "Guard", on_begin: Callable[[], None]) -> ASGIApp:
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
        return _file(request, self.assets.page if self._hub else self.assets.past)

    async def static(self, request: Request) -> Response:
        """Return a file of the page, which never changes under its address."""
        asset = self.assets.files.get(request.path_params["name"])
        if asset is None or request.path_params["version"] != self.assets.version:
            return Response("no such file", 404)
        return _file(request, asset, {"Cache-Control": "public, max-age=31536000, immutable"})

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
        if not _takes_gzip(request):
            return StreamingResponse(messages, media_type="text/event-stream")
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return StreamingResponse(squeezed(messages), 200, headers, "text/event-stream")

    # Not coroutines: Starlette carries them out on threads, for they read files.
    def past_runs(self, request: Request) -> Response:
        """Return the list of past runs."""
        return _compressed(request, _json(self._runs.summaries()), "application/json")

    def past_run(self, request: Request) -> Response:
        """Return one past run."""
        run = self._runs.run(request.path_params["name"])
        if run is None:
            return Response("no such run", 404)
        return _compressed(request, _json(run), "application/json")


class Guard:
    """Who may see the page.

    Parameters
    ----------
    token : str, optional
        What a viewer must know. Without one the page is for this machine, and a page of
        another site that lets its own name point here (DNS rebinding) is kept out.
    cookie : str
        Name of the cookie that then stands for the token.
    """

    def __init__(self, token: str | None, cookie: str) -> None:
        self._token = token
        self._cookie = cookie

    def around(self, app: ASGIApp, assets: Assets) -> ASGIApp:
        """Return an application that lets only those see `app` who may."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            request = Request(scope)
            refusal = self._refusal(request, assets)
            cookie = self._new_cookie(request) if refusal is None else None

            async def send_with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    for name, value in HEADERS.items():
                        headers[name] = value
                    headers.setdefault("Cache-Control", "no-store")
                    if cookie is not None:
                        headers.append("Set-Cookie", cookie)
                await send(message)

            await (refusal or app)(scope, receive, send_with_headers)

        return guarded

    async def login(self, request: Request) -> Response:
        """Take the token from the form."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_LOGIN_BYTES:
                return Response("too long", 413)
        shown = parse_qs(body.decode("utf-8", errors="replace")).get("token", [""])[0]
        answer = RedirectResponse("/" if self._is_token(shown) else "/?wrong", 303)
        if self._is_token(shown):
            answer.headers["Set-Cookie"] = self._cookie_of(shown)
        return answer

    def _refusal(self, request: Request, assets: Assets) -> Response | None:
        # Browsers say whether another site asks; the page itself may be opened from anywhere.
        site = request.headers.get("sec-fetch-site", "none")
        if request.url.path != "/" and site not in ("same-origin", "none"):
            return Response("only the page itself may ask", 403)
        if self._token is not None:
            return self._without_token(request, assets)
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name.lower() not in LOOPBACK_NAMES:
            return Response("this page is for http://localhost or http://127.0.0.1", 403)
        return None

    def _without_token(self, request: Request, assets: Assets) -> Response | None:
        """Return what those are told who do not show the token."""
        path = request.url.path
        if path == "/login" or path.startswith("/static/"):
            return None
        if self._is_token(request.cookies.get(self._cookie, "")) or self._new_cookie(request):
            return None
        if path != "/":
            return Response("log in first", 401)
        page = assets.wrong if "wrong" in request.query_params else assets.login
        return _file(request, page, status=401)

    def _new_cookie(self, request: Request) -> str | None:
        """Return the cookie for who shows the token in the page's address."""
        shown = request.query_params.get("token", "")
        return self._cookie_of(shown) if request.url.path == "/" and self._is_token(shown) else None

    def _is_token(self, shown: str) -> bool:
        return self._token is not None and hmac.compare_digest(shown.encode(), self._token.encode())

    def _cookie_of(self, token: str) -> str:
        age = f"Max-Age={COOKIE_AGE_S}"
        return f"{self._cookie}={token}; {age}; Path=/; HttpOnly; SameSite=Strict"


def _file(
    request: Request, asset: Asset, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    squeezed = _takes_gzip(request)
    more = {"Content-Encoding": "gzip"} if squeezed else {}
    return Response(
        asset.compressed if squeezed else asset.content,
        status,
        {**(headers or {}), **more, "Vary": "Accept-Encoding"},
        asset.kind,
    )


def _compressed(request: Request, content: bytes, kind: str) -> Response:
    return _file(request, Asset(content, gzip.compress(content, 6, mtime=0), kind))


async def squeezed(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Compress a stream; each part can be read as soon as it is there."""
    squeezer = zlib.compressobj(6, zlib.DEFLATED, GZIP + WINDOW_BITS, MEMORY_LEVEL)
    async with aclosing(parts):
        async for part in parts:
            yield squeezer.compress(part) + squeezer.flush(zlib.Z_SYNC_FLUSH)
    yield squeezer.flush()


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
