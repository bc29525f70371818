"""A page over HTTP, and what it answers."""

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedaq_server.dashboard.hub import Hub
from fedaq_server.dashboard.serving import Page, PageAccess, served


@dataclass(frozen=True)
class Answer:
    """What the page answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(
    page: Page,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: str | None = None,
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        endless = path.startswith("/events") and response.status == 200
        return Answer(response.status, response.headers, b"" if endless else response.read())
    finally:
        connection.close()


@contextmanager
def page_of(folder: Path, hub: Hub | None = None, token: str | None = None) -> Iterator[Page]:
    with served(PageAccess("127.0.0.1", token), 0, folder, hub) as page:
        yield page
