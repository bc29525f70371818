"""Who may see the page, and what browsers are told to keep others from doing with it."""

import asyncio
import hmac
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedaq_server.dashboard.assets import Assets, sent

MOST_LOGIN_BYTES = 1024
# How long a connection may take to ask for something, and the form to come whole.
REQUEST_S = 10
COOKIE_AGE_S = 30 * 24 * 3600
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


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
        try:
            async with asyncio.timeout(REQUEST_S):
                async for part in request.stream():
                    body += part
                    if len(body) > MOST_LOGIN_BYTES:
                        return Response("too long", 413)
        except (TimeoutError, ClientDisconnect):
            return Response("the token did not come", 408, {"Connection": "close"})
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
        return sent(request, page, status=401)

    def _new_cookie(self, request: Request) -> str | None:
        """Return the cookie for who shows the token in the page's address."""
        shown = request.query_params.get("token", "")
        return self._cookie_of(shown) if request.url.path == "/" and self._is_token(shown) else None

    def _is_token(self, shown: str) -> bool:
        return self._token is not None and hmac.compare_digest(shown.encode(), self._token.encode())

    def _cookie_of(self, token: str) -> str:
        age = f"Max-Age={COOKIE_AGE_S}"
        return f"{self._cookie}={token}; {age}; Path=/; HttpOnly; SameSite=Strict"
