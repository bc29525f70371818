"""The page's own thread, with an event loop and a server of its own."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from fedaq.errors import UserError
from fedaq.net.addresses import is_loopback, joined
from fedaq_server.dashboard.app import Site
from fedaq_server.dashboard.guard import REQUEST_S, Guard
from fedaq_server.dashboard.hub import Hub
from fedaq_server.dashboard.runs import PastRuns
from fedaq_server.transport import open_files

END_S = 2
POLL_S = 0.1
SHORTEST_TOKEN = 16
HOW_TO_MAKE_ONE = "openssl rand -hex 24 > page.token"


@dataclass(frozen=True)
class PageAccess:
    """Where the page is and what a viewer must know, None for nothing."""

    host: str
    token: str | None


@dataclass(frozen=True)
class Page:
    """Where the page is."""

    address: str
    port: int


def access_of(host: str, token_file: Path | None) -> PageAccess:
    """Return what the settings say of the page's access.

    Raises
    ------
    UserError
        If the token cannot be used, or others could see the page without one.
    """
    if token_file is not None:
        return PageAccess(host, _token(token_file))
    if not is_loopback(host):
        raise UserError(
            f"the page at {host} could be seen from other machines: give it a token, in the file "
            "that network.dashboard_token_file (for fedaq dashboard: --token-file) names; "
            f"{HOW_TO_MAKE_ONE} makes one"
        )
    return PageAccess(host, None)


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; {HOW_TO_MAKE_ONE} makes a token"
        ) from None
    except UnicodeDecodeError:
        token = ""
    # It must do as a cookie and in an address.
    if len(token) < SHORTEST_TOKEN or not token.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"{path}: a token has at least {SHORTEST_TOKEN} letters and digits, and no more than "
            f"- and _ besides; {HOW_TO_MAKE_ONE} makes one"
        )
    return token


@contextmanager
def served(access: PageAccess, port: int, folder: Path, hub: Hub | None) -> Iterator[Page]:
    """Serve the page within the block, on a thread of its own.

    Parameters
    ----------
    access : PageAccess
    port : int
        0 for any that is free.
    folder : Path
        Of past runs.
    hub : Hub, optional
        Of the run that goes on, if one does.

    Raises
    ------
    UserError
        If the port is taken, the address is not this machine's, or the page does not start.
    """
    with _listener(access.host, port) as listener:
        port = listener.getsockname()[1]
        guard = Guard(access.token, f"fedaq-{port}")
        ready = threading.Event()
        app = Site(hub, PastRuns(folder)).app(guard, ready.set)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=END_S,
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],), name="page", daemon=True)
        thread.start()
        while not ready.wait(POLL_S) and thread.is_alive():
            pass
        if not ready.is_set():
            raise UserError(
                f"the page at {access.host}:{port} did not start; what was logged before says why"
            )
        try:
            yield Page(_address(access, port), port)
        finally:
            # What was published last still reaches the viewers.
            server.should_exit = True
            thread.join()


def _address(access: PageAccess, port: int) -> str:
    return f"http://{joined(access.host, port)}/"


@contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"the page cannot be at {joined(host, port)}: {error}; choose another port, or another "
            "address (network.dashboard_host)"
        ) from None
    with listener:
        yield listener


class _Connection(H11Protocol):
    """A browser's connection; there are not too many, and none that asks for nothing.

    uvicorn's own limit ends with the first byte after an answer, be it of a body that nobody
    reads or of a request that never gets whole.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > open_files.page_connections(open_files.limit()):
            transport.abort()
            return
        self._idle = self.loop.call_later(REQUEST_S, self._end_idle, None)

    def on_response_complete(self) -> None:
        self._idle.cancel()
        self._idle = self.loop.call_later(REQUEST_S, self._end_idle, self.cycle)
        super().on_response_complete()

    def _end_idle(self, answered: RequestResponseCycle | None) -> None:
        # One that is closing already may still have to send its last answer.
        if self.cycle is answered and not self.transport.is_closing():
            self.transport.abort()
