"""The page during real runs: what it says of clients, forecasts, and how much it sends."""

import asyncio
import http.client
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fedaq.errors import FedaqError
from fedaq.settings import Settings
from fedaq.v1 import federation_pb2 as pb
from fedaq_lab import processes
from fedaq_lab.local import federate
from fedaq_server.dashboard import watch as watch_module
from fedaq_server.dashboard.hub import Hub
from fedaq_server.dashboard.live import View
from fedaq_server.dashboard.watch import Watch
from fedaq_server.records.ledger import Committed, Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.schemes.scheme import Plan
from system.commands import Commands, free_port
from system.live import learner, live_server, settings_of, take_part
from system.raw_client import FinishedError, raw_client

UPDATE_BYTES = 1000


def watched(run: Run) -> tuple[Watch, list[View]]:
    """Look at a run after each of its rounds."""
    watch, views = Watch(run), list[View]()

    def look(committed: Committed, plan: Plan) -> None:
        watch.committed(committed, plan)
        views.append(watch.view())

    run.on_commit = look
    return watch, views


def test_the_page_says_who_trains_who_was_refused_and_who_is_gone(tmp_path: Path) -> None:
    settings = settings_of(3, rounds=4, limits__strikes=2, network__return_wait_s=0.1)

    async def lie(run: Run, address: str) -> None:
        async with raw_client(address, run.spec) as client:
            await client.join(radio=pb.Radio(uplink_j_per_bit=3e-7, receive_j_per_bit=1e-7))
            for _ in range(2):
                plan = (await client.receive("plan")).plan
                await client.report(plan.round, ranges=[])
            await client.status()

    async def leave(run: Run, address: str) -> None:
        async with raw_client(address, run.spec) as client:
            await client.join(client="brief")
            await client.receive("plan")

    async def scenario() -> tuple[Watch, list[View], View, dict[tuple[str, str], int]]:
        async with live_server(settings, tmp_path, lambda run, record: None) as (run, address):
            watch, views = watched(run)
            waiting = watch.view()
            await asyncio.gather(
                take_part(address, "honest", learner(0, 1)), lie(run, address), leave(run, address)
            )
        return watch, views, waiting, run.ledger.traffic()

    watch, views, waiting, rows = asyncio.run(scenario())
    assert (waiting.status.phase, waiting.status.ready, waiting.status.wanted) == ("waiting", 0, 3)
    assert [view.status.round for view in views] == [2, 3, 4, 4]
    assert [len(view.points) for view in views] == [1, 2, 3, 4]
    first = views[0].clients
    assert list(first) == ["brief", "honest", "mallory"]
    assert first["brief"].state == "lost"
    assert first["brief"].seen_at is not None
    assert (first["honest"].state, first["honest"].seen_at) == ("waiting", None)
    assert first["honest"].uplink_bits > 0
    assert first["honest"].refusals == 0
    assert (first["mallory"].radio, first["mallory"].j_per_bit) == ("own", 3e-7)
    assert (first["honest"].radio, first["honest"].j_per_bit) == ("constant", 1e-7)
    assert first["mallory"].refusals == 1
    assert first["mallory"].reason == "the range report has 0 tensors, the model 6"
    last = watch.view(ended=True)
    assert last.status.phase == "over"
    assert last.clients["mallory"].state == "shut out"
    assert last.clients["mallory"].refusals == 2
    assert last.clients["mallory"].reason.startswith("shut out of this run after 2 refusals")
    assert last.clients["honest"].state == "left"
    assert [each.reason for each in last.turned_away] == [last.clients["mallory"].reason]
    assert last.turned_away[0].times == 1
    assert last.turned_away[0].peer.startswith("ipv4:127.0.0.1:")
    assert {
        (name, way): total
        for name, client in last.clients.items()
        for way, total in (("uplink", client.uplink_bytes), ("downlink", client.downlink_bytes))
        if total
    } == {key: total for key, total in rows.items() if key[0] != "mallory" and total}


def test_the_same_refusal_of_the_same_address_is_counted_and_few_are_remembered(
    tmp_path: Path,
) -> None:
    admission = Run(settings_of(1), Ledger(tmp_path), lambda record: None).admission
    for port, host in enumerate("abacadaeafag"):
        admission.turn_away(f"ipv4:{host}:{port}", "a reason")
    assert [(each.peer, each.times) for each in admission.turned_away.values()] == [
        ("ipv4:d:5", 1), ("ipv4:e:7", 1), ("ipv4:f:9", 1), ("ipv4:a:10", 6), ("ipv4:g:11", 1)
    ]  # fmt: skip


def test_a_look_that_fails_is_logged_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch_module, "EVERY_S", 0.01)
    watch = Watch(Run(settings_of(1), Ledger(tmp_path), lambda record: None))
    monkeypatch.setattr(watch, "view", lambda: 1 / 0)
    hub = Hub()
    hub.viewers = 1
    asyncio.run(watch_module._look(watch, hub))
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [
        ZeroDivisionError
    ]


def test_a_client_is_set_aside_and_comes_back(tmp_path: Path) -> None:
    settings = settings_of(2, rounds=3, network__round_deadline_s=2.0)

    async def dawdle(run: Run, address: str) -> None:
        async with raw_client(address, run.spec) as client:
            await client.join()
            try:
                await client.receive("plan")
                await client.receive("refusal")
                await client.receive("plan")
            except FinishedError:
                pass

    async def scenario() -> list[View]:
        async with live_server(settings, tmp_path, lambda run, record: None) as (run, address):
            _, views = watched(run)
            await asyncio.gather(take_part(address, "honest", learner(0, 1)), dawdle(run, address))
        return views

    views = asyncio.run(scenario())
    assert [view.clients["mallory"].state for view in views] == ["set aside"] * 3
    assert views[-1].clients["mallory"].reason.startswith("the update was not there 2 s after")


def test_what_a_client_was_refused_is_known_when_it_comes_back(tmp_path: Path) -> None:
    settings = settings_of(2, rounds=4, network__return_wait_s=0.1)

    async def come_twice(run: Run, address: str) -> None:
        for _ in range(2):
            async with raw_client(address, run.spec) as client:
                await client.join(process=b"one")
                plan = (await client.receive("plan")).plan
                await client.report(plan.round, ranges=[])
                await client.receive("refusal")

    async def scenario() -> View:
        async with live_server(settings, tmp_path, lambda run, record: None) as (run, address):
            watch, _ = watched(run)
            part = learner(0, 1, pause_s=0.3)
            await asyncio.gather(take_part(address, "honest", part), come_twice(run, address))
        return watch.view(ended=True)

    assert asyncio.run(scenario()).clients["mallory"].refusals == 2


@pytest.mark.parametrize("entropy", ["true", "false"])
def test_the_forecast_of_a_budget_is_what_the_run_then_takes(tmp_path: Path, entropy: str) -> None:
    budget_j = 0.3 if entropy == "true" else 2.0
    settings = settings_of(
        3, rounds=8, energy__budget_j=budget_j, coding__entropy=entropy == "true",
        coding__downlink="difference" if entropy == "true" else "model",
    )  # fmt: skip
    run = Run(settings, Ledger(tmp_path), lambda record: None)
    watch, views = watched(run)
    asyncio.run(federate(run))
    spent_j = sum(record.energy_j for record in run.records)
    assert len(views) == len(run.records) == 8
    for view in views:
        assert view.forecast is not None
        assert view.forecast.by == "scheme"
        assert view.forecast.energy_j <= budget_j * 1.0001
    assert views[-2].forecast is not None
    assert views[-2].forecast.energy_j == pytest.approx(spent_j, rel=0.15)
    over = watch.view(ended=True).forecast
    assert over is not None
    assert over.energy_j == pytest.approx(spent_j, rel=1e-4)


def test_a_resumed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    def stop(record: RoundRecord) -> None:
        if record.round == 2:
            raise FedaqError("enough")

    settings = settings_of(2, rounds=5)
    ledger = Ledger(tmp_path)
    with pytest.raises(FedaqError, match="enough"):
        asyncio.run(federate(Run(settings, ledger, stop)))
    ledger.close()
    run = Run(settings, Ledger(tmp_path), lambda record: None)
    watch, views = watched(run)
    before = watch.view()
    assert [point[0] for point in before.points] == [1, 2]
    assert before.forecast is not None
    asyncio.run(federate(run))
    assert [point[0] for point in views[-1].points] == [1, 2, 3, 4, 5]
    spent_j = sum(record.energy_j for record in run.records)
    assert views[-1].points[-1][6] == pytest.approx(spent_j, rel=1e-4)
    assert views[-1].clients["client-1"].uplink_bytes == run.ledger.traffic()["client-1", "uplink"]


def read_events(port: int, bodies: list[bytes]) -> None:
    """Append every event that a viewer is sent until the run is over."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/events")
    response = connection.getresponse()
    while line := response.readline():
        if line.startswith(b"data: "):
            bodies.append(line)


def test_a_round_takes_a_viewer_less_than_a_kilobyte(tmp_path: Path) -> None:
    clients, rounds, page_port = 5, 7, free_port()
    settings = settings_of(
        clients, rounds=rounds, network__dashboard_port=page_port, energy__budget_j=0.5
    )
    bodies: list[bytes] = []

    async def scenario() -> Run:
        async with live_server(settings, tmp_path, lambda run, record: None) as (run, address):
            viewer = threading.Thread(target=read_events, args=(page_port, bodies))
            viewer.start()
            # Long enough for the viewer to be told of every state.
            parts = [learner(number, clients, pause_s=0.7) for number in range(clients)]
            await asyncio.gather(
                *(take_part(address, f"client-{i}", part) for i, part in enumerate(parts))
            )
        await asyncio.to_thread(viewer.join)
        return run

    asyncio.run(scenario())
    messages = [json.loads(body.removeprefix(b"data: ")) for body in bodies]
    assert messages[-1]["status"] == {"phase": "over", "round": rounds, "ready": 0, "wanted": 0}
    points = [point for message in messages for point in message.get("points", ())]
    assert [point[0] for point in points] == list(range(1, rounds + 1))
    with_round = [place for place, message in enumerate(messages) if message.get("points")]
    between = bodies[with_round[1] : with_round[-2]]
    counted = len(
        [message for message in messages[with_round[1] : with_round[-2]] if message.get("points")]
    )
    assert sum(len(body) + 50 for body in between) / counted < UPDATE_BYTES


def test_fedaq_run_hands_the_port_of_the_page_to_its_server() -> None:
    line = processes._fedaq("server", {"task": None, "network.dashboard_port": 0}, None, [])
    assert line[-3:] == ["server", "--dashboard-port", "0"]


def test_a_run_in_one_process_has_a_page_too(commands: Commands) -> None:
    running = commands.start(
        "run", "--engine", "local", "--clients", 2, "--rounds", 500, "--dashboard-port", 0
    )
    running.wait_for("watch it: ")
    found = re.search(r"http://127\.0\.0\.1:(\d+)/\n", running.out.read_text())
    assert found is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    connection.request("GET", "/events")
    response = connection.getresponse()
    while not (line := response.readline()).startswith(b"data: "):
        pass
    first: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
    assert first["run"]["task"] == "digits"
    # How it is reached is nobody's business.
    assert not [name for name in first["run"]["settings"] if "dashboard" in name or "tls" in name]


def test_a_server_without_a_page_does_without_its_libraries() -> None:
    script = (
        "import sys, fedaq_server.cli.server_process, fedaq_server.run, fedaq_server.cli.server\n"
        "print(sorted({'starlette', 'uvicorn', 'h11'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_page_for_others_without_a_token_is_refused_in_one_line(commands: Commands) -> None:
    ended = commands.run(
        "server", "--port", 0, "--dashboard-port", 0, "--set", "network.dashboard_host=0.0.0.0"
    )
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("fedaq: the page at 0.0.0.0 could be seen from other machines")
    assert len(ended.err.splitlines()) == 1


def test_fedaq_dashboard_shows_a_folder(commands: Commands) -> None:
    settings = Settings(rounds=1, clients=1)
    folder = commands.folder / "runs" / "first"
    folder.mkdir(parents=True)
    asyncio.run(federate(Run(settings, Ledger(folder), lambda record: None)))
    shown = commands.start("dashboard", "runs", "--port", 0)
    shown.wait_for("shows the runs in runs")
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", shown.out.read_text())
    assert found is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
    connection.request("GET", "/api/runs")
    (run,) = json.loads(connection.getresponse().read())
    assert (run["id"], run["rounds"], run["finished"]) == ("first", 1, True)
    shown.signal(15)
    ended = shown.wait()
    assert (ended.code, ended.err) == (143, "fedaq: stopped\n")
    missing = commands.run("dashboard", "nowhere")
    assert (missing.code, missing.out) == (2, "")
    assert missing.err.startswith("fedaq: nowhere: not a folder; give one that holds runs")
