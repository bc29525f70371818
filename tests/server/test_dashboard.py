"""The page over HTTP: who may see it, and what it sends."""

import asyncio
import gzip
import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvicorn

from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq_server.dashboard import app, guard, serving
from fedaq_server.dashboard.assets import Assets
from fedaq_server.dashboard.hub import Hub, squeezed
from fedaq_server.dashboard.live import ClientView, Forecast, Status, View, changes, flat
from fedaq_server.dashboard.serving import Page, PageAccess, access_of, served
from fedaq_server.transport import open_files
from server.pages import ask, page_of

TOKEN = "0123456789abcdef"
PATHS = ("/", "/events", "/api/runs", "/api/runs/first", "/nowhere")
LOAD_BYTES, UPDATE_BYTES, ROUNDS = 102_000, 1000, 20
# Of a chunk in HTTP.
FRAME_BYTES = 8


def view(number: int, phase: str = "training") -> View:
    points = tuple((each, *[0.5] * 12) for each in range(1, number + 1))
    return View(time.time(), {"task": "digits"}, Status(phase, number), points)


def until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- Who may see it ---------------------------------------------------------


def test_every_answer_forbids_foreign_scripts_frames_and_guesses(tmp_path: Path) -> None:
    with page_of(tmp_path, Hub()) as page:
        for path in PATHS:
            headers = ask(page, path).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'self';")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["server"] is None
            assert headers["access-control-allow-origin"] is None


def test_nothing_inline_is_in_the_page(tmp_path: Path) -> None:
    with page_of(tmp_path, Hub()) as page:
        text = ask(page, "/").body.decode()
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    assert "<style" not in text
    assert " style=" not in text
    assert not re.search(r" on\w+=", text)
    # It works without the internet.
    assert "http" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_it_only_reads(method: str, tmp_path: Path) -> None:
    with page_of(tmp_path, Hub()) as page:
        statuses = {ask(page, path, method=method).status for path in PATHS}
    assert statuses == {404, 405}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200), ("127.0.0.1", 200), ("[::1]:9", 200), ("LOCALHOST", 200),
        ("example.org", 403), ("example.org:8080", 403), ("localhost.example.org", 403),
        ("127.0.0.1.example.org:1", 403), ("", 403),
    ],
)  # fmt: skip
def test_another_name_for_this_machine_is_refused(host: str, status: int, tmp_path: Path) -> None:
    with page_of(tmp_path) as page:
        assert ask(page, "/", {"Host": host}).status == status
        assert ask(page, "/api/runs", {"Host": host}).status == status


def test_pages_of_other_sites_may_ask_nothing(tmp_path: Path) -> None:
    with page_of(tmp_path, Hub()) as page:
        for site in ("cross-site", "same-site"):
            assert ask(page, "/events", {"Sec-Fetch-Site": site}).status == 403
            assert ask(page, "/api/runs", {"Sec-Fetch-Site": site}).status == 403
        assert ask(page, "/api/runs", {"Sec-Fetch-Site": "same-origin"}).status == 200
        # A link on another site may lead here.
        assert ask(page, "/", {"Sec-Fetch-Site": "cross-site"}).status == 200


def test_without_the_token_there_is_the_form_and_nothing_else(tmp_path: Path) -> None:
    with page_of(tmp_path, Hub(), TOKEN) as page:
        form = ask(page, "/")
        assert form.status == 401
        assert b'name="token"' in form.body
        assert b"not the token" in form.body.replace(b" hidden", b"")
        for path in PATHS[1:]:
            assert ask(page, path).status == 401
            assert ask(page, f"{path}?token={TOKEN}").status == 401
            assert ask(page, path, {"Cookie": f"fedaq-{page.port}=wrong"}).status == 401
        assert ask(page, "/?token=wrong").status == 401
        (style,) = re.findall(rb'href="(\S+style.css)"', form.body)
        assert ask(page, style.decode()).status == 200


def test_the_token_in_the_address_becomes_a_cookie(tmp_path: Path) -> None:
    with page_of(tmp_path, Hub(), TOKEN) as page:
        shown = ask(page, f"/?token={TOKEN}", {"Sec-Fetch-Site": "cross-site"})
        assert shown.status == 200
        cookie, *flags = shown.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
        # Any host will do: it is the cookie that says who asks.
        assert ask(page, "/api/runs", {"Cookie": cookie, "Host": "server.example"}).status == 200
        assert ask(page, "/", {"Cookie": cookie}).status == 200


def test_the_token_in_the_form_becomes_a_cookie(tmp_path: Path) -> None:
    with page_of(tmp_path, Hub(), TOKEN) as page:
        right = ask(page, "/login", method="POST", body=f"token={TOKEN}")
        assert (right.status, right.headers["location"]) == (303, "/")
        cookie = right.headers["set-cookie"].partition(";")[0]
        assert ask(page, "/api/runs", {"Cookie": cookie}).status == 200
        for body in ("token=wrong", "", "nonsense", "token=%ff%fe"):
            wrong = ask(page, "/login", method="POST", body=body)
            assert (wrong.status, wrong.headers["set-cookie"]) == (303, None)
        again = ask(page, wrong.headers["location"])
        assert again.status == 401
        assert b'role="alert">That is not the token' in again.body
        assert ask(page, "/login", method="POST", body="x" * 5000).status == 413
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert ask(page, "/login", foreign, "POST", f"token={TOKEN}").status == 403


def test_beyond_loopback_a_token_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"openssl rand -hex 24 > page\.token") as caught:
        access_of("0.0.0.0", None)
    assert "network.dashboard_token_file" in str(caught.value)
    file = tmp_path / "page.token"
    with pytest.raises(UserError, match="cannot be read"):
        access_of("0.0.0.0", file)
    for content in (b"", b"short", b"0123456789 abcdef", b"\xff" * 20, b"0123456789abcdef;x"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="at least 16 letters and digits"):
            access_of("0.0.0.0", file)
    file.write_text(f"{TOKEN}\n")
    assert access_of("0.0.0.0", file) == PageAccess("0.0.0.0", TOKEN)
    assert access_of("127.0.0.1", None) == PageAccess("127.0.0.1", None)


def test_a_port_that_is_taken_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with (
        page_of(tmp_path) as page,
        pytest.raises(UserError, match=f"the page cannot be at 127.0.0.1:{page.port}"),
        served(PageAccess("127.0.0.1", None), page.port, tmp_path, None),
    ):
        pass


def test_connections_that_ask_for_nothing_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "PAGE_CONNECTIONS", 4)
    monkeypatch.setattr(serving, "REQUEST_S", 0.3)
    with page_of(tmp_path) as page:
        idle = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(4)]
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            ask(page, "/")
        for each in idle:
            each.settimeout(30)
            with each, pytest.raises(ConnectionError):
                # The end of an aborted connection is a reset.
                assert each.recv(1) == b""
                raise ConnectionError
        assert ask(page, "/").status == 200


def test_a_token_that_never_comes_whole_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "REQUEST_S", 0.3)
    begun = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntoken="
    with caplog.at_level(logging.ERROR), page_of(tmp_path, None, TOKEN) as page:
        with socket.create_connection(("127.0.0.1", page.port), timeout=30) as slow:
            slow.sendall(begun)
            answer = b"".join(iter(lambda: slow.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(("127.0.0.1", page.port), timeout=30) as gone:
            gone.sendall(begun)
            time.sleep(0.1)
        assert ask(page, "/login", method="POST", body=f"token={TOKEN}").status == 303
    assert caplog.records == []


@pytest.mark.parametrize(
    ("more", "rest"),
    [
        (b"Content-Length: 100\r\n", b"x"),  # a body that nobody reads
        (b"", b"GET"),  # another request that never gets whole
    ],
)
def test_a_connection_is_not_kept_by_what_never_gets_whole(
    more: bytes, rest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REQUEST_S", 0.3)
    with (
        page_of(tmp_path, None, TOKEN) as page,
        socket.create_connection(("127.0.0.1", page.port), timeout=10) as kept,
    ):
        kept.sendall(b"GET /api/runs HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 401 ")
        kept.sendall(rest)
        with pytest.raises(ConnectionError):
            while kept.recv(4096):
                pass
            raise ConnectionError


def test_a_page_that_does_not_start_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # uvicorn logs what went wrong and returns.
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: None)
    with pytest.raises(UserError, match="did not start"), page_of(tmp_path):
        pass


# ---- What it sends ----------------------------------------------------------


def test_the_files_of_the_page_are_small_and_kept_for_ever(tmp_path: Path) -> None:
    squeezed = {"Accept-Encoding": "gzip"}
    with page_of(tmp_path, Hub()) as page:
        index = ask(page, "/", squeezed)
        text = gzip.decompress(index.body).decode()
        assert index.headers["cache-control"] == "no-store"
        first = re.findall(r'(?:href|src)="(/static/\S+)"', text)
        (place,) = {path.rsplit("/", 1)[0] for path in first if "vendor" not in path}
        # What the scripts import, and the style names.
        paths = {*first, *(f"{place}/{name}" for name in ("ui.js", "live.js", "runs.js"))}
        paths.add(f"{place}/format.js")
        total = len(index.body)
        for path in sorted(paths):
            answer = ask(page, path, squeezed)
            assert answer.status == 200, path
            assert answer.headers["content-encoding"] == "gzip"
            assert "immutable" in answer.headers["cache-control"]
            plain = ask(page, path)
            assert plain.headers["content-encoding"] is None
            assert gzip.decompress(answer.body) == plain.body
            total += len(answer.body) + 600  # its headers
        shipped = {f"{place}/{name}" for name in Assets().files}
        assert shipped - paths == {f"{place}/vendor/LICENSES.txt"}
        assert ask(page, f"{place}/nothing.js").status == 404
        assert ask(page, place.replace("/static/", "/static/0") + "/app.js").status == 404
    # The longest first message: a long run with as many clients as are shown.
    client = ClientView("set aside", "lte-m", 1.23e-7, 12.345, 12.345, 10**9, 10**9, 1.8e9, 3, "x")
    clients = {f"client-{number:03}": client for number in range(300)}
    point = (12345, 0.12345, 0.12345, 0.12345, 1.2345, 1.2345, 123.45, 10**8, 10**8, 100, 0, 1.234)
    settings = flat(Settings().model_dump(mode="json", exclude={"client"}))
    now = View(1.8e9, {"settings": settings}, Status("training", 1), (point,) * 9999, None, clients)
    total += len(json.dumps(changes(None, now), separators=(",", ":")))
    assert total < LOAD_BYTES


def events(page: Page, count: int, path: str = "/events") -> list[dict[str, Any]]:
    """Return the first messages that a viewer is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")
    found: list[Any] = []
    while len(found) < count:
        line = response.readline()
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
    connection.close()
    return found


def test_a_viewer_is_told_all_at_first_and_then_what_has_changed(tmp_path: Path) -> None:
    hub = Hub()
    with page_of(tmp_path, hub) as page:
        found: list[dict[str, Any]] = []
        watching = threading.Thread(target=lambda: found.extend(events(page, 3)))
        watching.start()
        until(lambda: hub.viewers == 1)
        for number in (1, 1, 2, 3):
            hub.publish(replace(view(number), at=float(number)))
            time.sleep(0.1)
        watching.join(30)
        until(lambda: hub.viewers == 0)
    assert [len(message["points"]) for message in found] == [1, 1, 1]
    assert "run" in found[0]
    assert "run" not in found[1]
    assert [message["status"]["round"] for message in found] == [1, 2, 3]


def test_a_viewer_that_reads_nothing_holds_up_nobody_and_nothing_piles_up(tmp_path: Path) -> None:
    hub = Hub()
    large = {"settings": {str(number): "x" * 100 for number in range(100_000)}}
    with page_of(tmp_path, hub) as page, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", page.port))
        slow.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: hub.viewers == 1)
        first = View(0.0, large, Status("training", 0))
        hub.publish(first)  # more than its socket takes
        began = time.monotonic()
        for number in range(1, 501):
            hub.publish(replace(view(number), run=large))
        hub.publish(replace(view(501, "over"), run=large))
        assert time.monotonic() - began < 5
        assert ask(page, "/").status == 200
        slow.settimeout(30)
        received = b""
        while part := slow.recv(2**20):
            received += part
            if b'"phase":"over"' in received:
                break
        # The first view, perhaps what came while that was read, and then all the rest at once.
        assert received.count(b"data: {") < 10


def test_there_is_a_limit_to_viewers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_VIEWERS", 3)
    hub = Hub()
    with page_of(tmp_path, hub) as page:
        watching = []
        for count in range(1, 4):
            watching.append(socket.create_connection(("127.0.0.1", page.port)))
            watching[-1].sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda count=count: hub.viewers == count)
        refused = ask(page, "/events")
        assert (refused.status, refused.body) == (
            503, b"3 people are watching already; try again later"
        )  # fmt: skip
        assert ask(page, "/").status == 200
        for each in watching:
            each.close()
        until(lambda: hub.viewers == 0)
        assert ask(page, "/events").status == 200


def test_a_round_takes_less_than_a_kilobyte_also_if_every_change_is_told_alone() -> None:
    names = [f"client-{number}" for number in range(1, 6)]
    random = Random(1)

    def rounds() -> Iterator[View]:
        now = View(0.0, {"task": "digits"}, Status("training", 1))
        clients = dict.fromkeys(names, ClientView("waiting", "lte-m", 1e-7))
        for number in range(1, ROUNDS + 1):
            for state in ("receiving", "training", "sending", "done"):
                for name in random.sample(names, len(names)):
                    clients = {**clients, name: replace(clients[name], state=state)}
                    yield (now := replace(now, clients=clients))
            clients = {
                name: replace(
                    client, uplink_bits=random.random(), downlink_bits=random.random(),
                    uplink_bytes=random.randrange(10**9), downlink_bytes=random.randrange(10**9),
                )
                for name, client in clients.items()
            }  # fmt: skip
            point = (number, *(float(f"{random.random():.5g}") for _ in range(11)))
            ahead = Forecast(float(f"{random.random():.5g}"), "scheme")
            status = Status("training", number + 1)
            now = replace(now, points=(*now.points, point), status=status, forecast=ahead)
            yield (now := replace(now, clients=clients))

    async def said() -> int:
        hub, total = Hub(), 0
        messages = squeezed(hub.events(0))
        await anext(messages)  # how soon to try again
        for view in rounds():
            hub._show(view)
            total += len(await anext(messages)) + FRAME_BYTES
        await messages.aclose()
        assert hub.viewers == 0
        return total

    assert asyncio.run(said()) < ROUNDS * UPDATE_BYTES


def test_the_end_of_a_run_reaches_who_watches(tmp_path: Path) -> None:
    hub, found = Hub(), list[dict[str, Any]]()
    with page_of(tmp_path, hub) as page:
        watching = threading.Thread(target=lambda: found.extend(events(page, 1)))
        watching.start()
        until(lambda: hub.viewers == 1)
        hub.publish(view(3, "over"))
    watching.join(30)
    assert found[0]["status"] == {"phase": "over", "round": 3, "ready": 0, "wanted": 0}
