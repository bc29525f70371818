"""`Client` inside a program, against a server on a real socket: it declines, restarts, stops."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fedaq
from fedaq.codec import model
from fedaq.declines import Decline, Reason
from fedaq.errors import FedaqError
from fedaq.settings import Settings
from fedaq.tasks import Task, load_task, train_classifier
from fedaq_client.client import STOPPED, Client
from fedaq_client.events import Declined, Event, Joined, RoundBegun, Sent, Trained
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from system.live import live_server, settings_of

CLIENTS = 3
PATIENCE_S = 60.0
Ready = Callable[[], Decline | bool | None]


def task(data: Path | None = None, pause_s: float = 0.0) -> Task:
    def train(*arguments: Any) -> float:
        time.sleep(pause_s)
        return train_classifier(*arguments)

    return replace(load_task("digits", data), train=train)


def settings(rounds: int, clients: int = CLIENTS, **options: Any) -> Settings:
    return settings_of(
        clients, **{"rounds": rounds, "network__heartbeat_interval_s": 0.5, **options}
    )


def client(address: str, number: int, **options: Any) -> Client:
    return Client(
        options.pop("of", task), address, partition=f"{number}/{CLIENTS}",
        name=f"client-{number}", **options,
    )  # fmt: skip


def until(holds: Callable[[], object]) -> None:
    """Wait on a thread that is not the loop's."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@asynccontextmanager
async def others(address: str, *numbers: int) -> AsyncIterator[None]:
    """Take part with clients that are always ready, to the end of the run."""
    taking_part = [asyncio.create_task(client(address, number).arun()) for number in numbers]
    try:
        yield
        for each in taking_part:
            assert "the run is over" in await each
    finally:
        for each in taking_part:
            each.cancel()
        await asyncio.gather(*taking_part, return_exceptions=True)


def declined_by_first(run: Run) -> Decline | None:
    found = run.roster.get("client-1")
    return None if found is None else found.declined


def federate(
    folder: Path,
    asked: Settings,
    ready_of: Callable[[Run], Ready],
    between: Callable[[Run, RoundRecord], object] = lambda run, record: None,
    on_event: Callable[[Event], object] = lambda event: None,
) -> Run:
    """Run a federation whose first client is asked whether it is ready."""

    async def main() -> Run:
        async with live_server(asked, folder) as (run, address), others(address, 2, 3):
            run.is_last = lambda record: bool(between(run, record)) and False
            first = client(address, 1, ready=ready_of(run), on_event=on_event)
            assert "the run is over" in await first.arun()
        return run

    return asyncio.run(main())


# ---- Declining ---------------------------------------------------------------------


def test_a_client_that_declines_every_second_round_needs_what_it_missed(tmp_path: Path) -> None:
    def ready_of(run: Run) -> Ready:
        return lambda: Decline(Reason.BUSY, "at work") if run.ledger.rounds_done % 2 else None

    def heard(run: Run, record: RoundRecord) -> None:
        """Let the next round begin only when the server knows whether the client is ready."""
        declines = record.round % 2 == 1
        until(lambda: (declined_by_first(run) is not None) == declines)

    events: list[Event] = []
    run = federate(tmp_path, settings(6), ready_of, heard, events.append)
    records = run.records
    assert [record.clients for record in records] == [3, 2, 3, 2, 3, 2]
    assert [record.left_out for record in records] == [0] * 6
    assert [record.declined for record in records] == [{}, {"busy": 1}] * 3
    # Of the model that was sent when it was away, and that is little beside the whole model.
    caught_up = [record.catch_up_payload_bytes for record in records]
    assert caught_up == [0, 0, records[1].downlink_payload_bytes // 2, 0,
                         records[3].downlink_payload_bytes // 2, 0]  # fmt: skip
    assert 0 < max(caught_up) < run.spec.parameters
    assert [event.round for event in events if isinstance(event, Sent)] == [1, 3, 5]
    assert Declined(Reason.BUSY, "at work") in events
    assert run.conduct.strikes == {}


def test_a_round_goes_on_at_once_without_a_client_that_declines_in_the_midst_of_it(
    tmp_path: Path,
) -> None:
    """The deadline is ten minutes off."""

    def ready_of(run: Run) -> Ready:
        def ready() -> Decline | None:
            opened = run.roster.get("client-1")
            is_second = opened is not None and opened.round == 2 and run.ledger.rounds_done == 1
            return Decline(Reason.BATTERY, "4 %") if is_second else None

        return ready

    def back(run: Run, record: RoundRecord) -> None:
        until(lambda: declined_by_first(run) is None)

    run = federate(tmp_path, settings(3), ready_of, back)
    records = run.records
    assert [(r.clients, r.left_out, r.declined) for r in records] == [
        (3, 0, {}), (2, 1, {"battery": 1}), (3, 0, {}),
    ]  # fmt: skip
    assert run.conduct.strikes == {}
    value = run.metrics.registry.get_sample_value
    assert value("fedaq_left_out_total", {"reason": "declined"}) == 1
    assert value("fedaq_declines_total", {"reason": "battery"}) == 1
    assert value("fedaq_refusals_total", {"reason": "deadline"}) == 0


def test_all_may_decline_for_a_while(tmp_path: Path) -> None:
    since = time.monotonic()

    async def main() -> Run:
        def ready() -> Decline | None:
            return Decline("metered") if time.monotonic() < since + 3 else None  # type: ignore[arg-type]

        async with live_server(settings(2), tmp_path) as (run, address):
            clients = [client(address, n, ready=ready) for n in range(1, CLIENTS + 1)]
            await asyncio.gather(*(each.arun() for each in clients))
        return run

    run = asyncio.run(main())
    # The first round needs one that is ready, and all that are there.
    assert run.records[0].clients + run.records[0].declined.get("metered", 0) == CLIENTS
    assert len(run.records) == 2
    assert time.monotonic() > since + 3


def test_a_server_that_gives_up_says_how_many_declined_and_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(settings(2, network__join_timeout_s=8), tmp_path) as (run, address):
            answers = (lambda: Decline(Reason.BUSY), lambda: Decline(Reason.OTHER)) * 2
            declining = [
                asyncio.create_task(client(address, n, ready=answers[n]).arun()) for n in (1, 2, 3)
            ]
            await asyncio.to_thread(until, lambda: run.roster.declined().total() == CLIENTS)
            await asyncio.to_thread(until, lambda: not run.roster)
            for each in declining:
                each.cancel()
            await asyncio.gather(*declining, return_exceptions=True)

    with pytest.raises(FedaqError, match=r"0 of 1 .* within 8 s; 3 declined \(busy 1, other 2\)"):
        asyncio.run(main())


# ---- Beside a program --------------------------------------------------------------


def test_it_takes_part_while_the_loop_of_the_program_turns(tmp_path: Path) -> None:
    events: list[tuple[Event, int]] = []
    handlers = signal.getsignal(signal.SIGINT)

    async def main() -> int:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        turning = asyncio.create_task(turn())
        async with live_server(settings(2, clients=1), tmp_path) as (_, address):
            torch.manual_seed(5)
            torch.set_num_threads(2)
            reason = await client(
                address, 1, of=lambda data: task(data, 0.2), threads=1,
                on_event=lambda event: events.append((event, threading.get_ident())),
            ).arun()  # fmt: skip
            assert "the run is over" in reason
            drawn = torch.rand(1)
            torch.manual_seed(5)
            assert torch.equal(torch.rand(1), drawn)
            assert torch.get_num_threads() == 2
        turning.cancel()
        return turns

    assert asyncio.run(main()) > 10
    assert [type(event) for event, _ in events] == [Joined, *[RoundBegun, Trained, Sent] * 2]
    assert {thread for _, thread in events} == {threading.get_ident()}
    assert signal.getsignal(signal.SIGINT) is handlers


@asynccontextmanager
async def in_a_thread(work: Callable[[], Any]) -> AsyncIterator["asyncio.Future[Any]"]:
    yield asyncio.ensure_future(asyncio.to_thread(work))


def test_it_is_run_in_a_thread_and_stopped_from_another(tmp_path: Path) -> None:
    async def main() -> None:
        asked = settings(10_000, clients=2, min_clients=1, clients_per_round=1.0)
        async with live_server(asked, tmp_path) as (run, address):
            begun: asyncio.Queue[Event] = asyncio.Queue()
            loop = asyncio.get_running_loop()

            def on_event(event: Event) -> None:
                loop.call_soon_threadsafe(begun.put_nowait, event)

            first, second = (client(address, n, on_event=on_event) for n in (1, 2))
            async with in_a_thread(first.run) as one, in_a_thread(second.run) as two:
                while not isinstance(await begun.get(), Sent):
                    pass
                first.stop()
                assert await one == STOPPED
                # It said that it leaves: no round waits for its return.
                await asyncio.to_thread(until, lambda: "client-1" in run.roster.gone)
                assert run.roster.gone["client-1"].left
                run.is_last = lambda record: True
                assert "the run is over" in await two

    asyncio.run(main())


def test_a_client_that_is_stopped_before_it_begins_does_nothing() -> None:
    early = client("127.0.0.1:9", 1)
    early.stop()
    assert early.run() == STOPPED


def test_a_cancelled_client_ends_with_the_cancellation(tmp_path: Path) -> None:
    async def main() -> None:
        async with live_server(settings(1), tmp_path) as (run, address):
            waiting = asyncio.create_task(client(address, 1).arun())
            await asyncio.to_thread(until, lambda: len(run.roster))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with others(address, 1, 2, 3):
                pass

    asyncio.run(main())


@pytest.mark.parametrize("where", ["ready", "on_event"])
def test_an_error_of_the_program_ends_the_client_and_is_told_as_its_own(
    where: str, tmp_path: Path
) -> None:
    def ready() -> bool:
        if where == "ready" and times.pop():
            raise KeyError("no battery is there")
        return True

    def on_event(event: Event) -> None:
        if where == "on_event" and isinstance(event, Sent):
            raise KeyError("no battery is there")

    times = [True, False]

    async def main() -> Run:
        async with live_server(settings(2), tmp_path) as (run, address), others(address, 2, 3):
            with pytest.raises(KeyError, match="no battery is there") as caught:
                await client(address, 1, ready=ready, on_event=on_event).arun()
            notes = getattr(caught.value, "__notes__", [])
            assert notes == ["in ready(), which the program gave to its fedaq client"] * (
                where == "ready"
            )
            if where == "ready":
                await asyncio.to_thread(until, lambda: "client-1" in run.roster.gone)
                assert run.roster.gone["client-1"].left
                async with others(address, 1):
                    pass
        return run

    assert len(asyncio.run(main()).records) == 2


# ---- Restarted ---------------------------------------------------------------------


def killed_after_each_round(folder: Path, rounds: int, options: dict[str, Any]) -> Run:
    """Run a federation whose first client is killed after every round, and started anew."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(address: str) -> None:
        line = ["client", "--task=digits", f"--partition=1/{CLIENTS}", f"--server={address}",
                "--name=client-1", "--set", f"client.state={folder / 'state'}"]  # fmt: skip
        processes.append(subprocess.Popen([sys.executable, "-P", "-m", "fedaq", *line]))

    async def main() -> Run:
        asked = settings(rounds, **options)
        (folder / "run").mkdir()
        async with live_server(asked, folder / "run") as (run, address), others(address, 2, 3):

            def again(record: RoundRecord) -> bool:
                if record.round < rounds:
                    processes[-1].kill()
                    processes[-1].wait()
                    until(lambda: run.roster.get("client-1") is None)
                    start(address)
                    until(lambda: run.roster.get("client-1") is not None)
                return False

            run.is_last = again
            start(address)
        return run

    try:
        run = asyncio.run(main())
        assert processes[-1].wait(PATIENCE_S) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return run


def test_a_client_that_is_killed_after_each_round_gives_the_model_that_it_would_have_given(
    tmp_path: Path,
) -> None:
    options = {"energy__budget_j": 0.02}  # so little that tensors are left unsent
    run = killed_after_each_round(tmp_path, 4, options)
    assert [(r.clients, r.left_out) for r in run.records] == [(3, 0)] * 4
    assert sum(record.catch_up_payload_bytes for record in run.records) == 0
    undisturbed = fedaq.run("digits", clients=CLIENTS, rounds=4, budget_j=0.02, progress=False)
    tensors = run.model.state_dict()
    assert all(torch.equal(tensors[n], v) for n, v in undisturbed.state_dict().items())
    assert not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize("keeps", [True, False])
def test_a_client_that_was_off_for_rounds_needs_a_difference_if_it_has_a_folder(
    keeps: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "state" if keeps else None

    async def main() -> Run:
        lives: list[threading.Thread] = []
        clients: list[Client] = []
        (tmp_path / "run").mkdir()

        async with (
            live_server(settings(5), tmp_path / "run") as (run, address),
            others(address, 2, 3),
        ):

            def live() -> None:
                clients.append(client(address, 1, state=folder))
                lives.append(threading.Thread(target=clients[-1].run))
                lives[-1].start()

            def between(record: RoundRecord) -> bool:
                if record.round == 2:
                    clients[-1].stop()
                    lives[-1].join(PATIENCE_S)
                    until(lambda: run.roster.get("client-1") is None)
                if record.round == 3:
                    live()
                    until(lambda: run.roster.get("client-1") is not None)
                return False

            run.is_last = between
            live()
        lives[-1].join(PATIENCE_S)
        return run

    run = asyncio.run(main())
    records = run.records
    assert [record.clients for record in records] == [3, 3, 2, 3, 3]
    differences = [record.downlink_payload_bytes // record.clients for record in records]
    caught_up = [record.catch_up_payload_bytes for record in records]
    assert caught_up[:3] == [0, 0, 0]
    # Without it, a client begins with the model of the seed, and lacks everything since.
    assert caught_up[3:] == [sum(differences[2 if keeps else 1 : 3]), 0]
    assert 0 < differences[1] < run.spec.parameters
    history = run.federation.history
    assert history is not None
    assert model.digest(history.held, history.past.noted) == history.digest
