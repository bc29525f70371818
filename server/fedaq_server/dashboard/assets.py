"""The files of the page, and how they are sent."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

TYPES = {".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain",
         ".js": "text/javascript", ".mjs": "text/javascript"}  # fmt: skip


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


def sent(
    request: Request, asset: Asset, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    """Return a file as an answer, compressed for who can read that."""
    squeezed = takes_gzip(request)
    more = {"Content-Encoding": "gzip"} if squeezed else {}
    return Response(
        asset.compressed if squeezed else asset.content,
        status,
        {**(headers or {}), **more, "Vary": "Accept-Encoding"},
        asset.kind,
    )


def compressed(request: Request, content: bytes, kind: str) -> Response:
    """Return something made for one request as an answer."""
    return sent(request, Asset(content, gzip.compress(content, 6, mtime=0), kind))


def takes_gzip(request: Request) -> bool:
    """Tell whether who asks can read gzip."""
    return "gzip" in request.headers.get("accept-encoding", "")
