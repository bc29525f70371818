"""`fedaq.Server` inside a program, with clients as processes."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedaq
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.rules import median
from fedaq_server.server import RoundEnd, Server
from system.commands import free_port

PATIENCE_S = 90.0
CLIENTS = 2


@contextmanager
def clients() -> Iterator[Callable[[str], None]]:
    """Yield what starts clients of a server at an address; they end with the block."""
    started: list[subprocess.Popen[bytes]] = []

    def start(address: str) -> None:
        for number in range(1, CLIENTS + 1):
            command = ["client", "--task=digits", f"--partition={number}/{CLIENTS}"]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "fedaq", *command, f"--server={address}"],
                    stdout=subprocess.DEVNULL,
                )
            )

    try:
        yield start
        for process in started:
            assert process.wait(PATIENCE_S) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()


def server(out: Path, start: Callable[[str], None], **options: Any) -> Server:
    options = {"clients": CLIENTS, "rounds": 3, "port": 0, **options}
    return fedaq.Server("digits", out=out, on_listening=start, **options)


def weights_of(tensors: dict[str, torch.Tensor]) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in tensors.values())


def test_it_gives_the_bytes_of_a_local_run_and_publishes_after_each_round(tmp_path: Path) -> None:
    published: list[tuple[int, bytes]] = []
    seen: list[int] = []
    threads = set()

    def after_round(end: RoundEnd) -> None:
        threads.add(threading.get_ident())
        published.append((end.record.round, weights_of(end.state_dict())))

    with clients() as start:
        served = server(
            tmp_path,
            start,
            after_round=after_round,
            on_round=lambda record: seen.append(record.round),
        ).run()
    assert weights_of(served.state_dict()) == weights_of(
        fedaq.run("digits", clients=CLIENTS, rounds=3).state_dict()
    )
    assert [number for number, _ in published] == seen == [1, 2, 3]
    assert published[-1][1] == weights_of(served.state_dict())
    assert len({weights for _, weights in published}) == 3
    assert threading.get_ident() not in threads


def test_a_hook_ends_the_run_for_good(tmp_path: Path) -> None:
    def enough(end: RoundEnd) -> None:
        if end.record.round == 2:
            end.end_run()

    async def main() -> fedaq.Result:
        async with asyncio.timeout(PATIENCE_S):
            return await server(tmp_path, start, rounds=1000, after_round=enough).arun()

    with clients() as start:  # they end by themselves, told that the run is over
        result = asyncio.run(main())
    assert len(result.rounds) == 2
    assert result.record.finished
    with pytest.raises(fedaq.UserError, match="is over after 2 rounds"):
        server(tmp_path, print, rounds=1000, resume=True).run()


def test_a_stopped_server_is_resumed_to_the_same_model(tmp_path: Path) -> None:
    port = free_port()
    begun: list[Server] = []

    def stop_after_two(record: RoundRecord) -> None:
        if record.round == 2:
            threading.Thread(target=begun[0].stop).start()

    with clients() as start:
        begun.append(server(tmp_path, start, rounds=6, on_round=stop_after_two, port=port))
        with pytest.raises(asyncio.CancelledError):
            begun[0].run()
        # The clients look for it meanwhile.
        resumed = server(tmp_path, lambda address: None, rounds=6, resume=True, port=port).run()
    assert [record.round for record in resumed.rounds] == [1, 2, 3, 4, 5, 6]
    assert weights_of(resumed.state_dict()) == weights_of(
        fedaq.run("digits", clients=CLIENTS, rounds=6).state_dict()
    )


@pytest.mark.slow
def test_an_error_of_a_hook_ends_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    port = free_port()

    def fails(end: RoundEnd) -> None:
        raise KeyError("no such bucket")

    with clients() as start:
        with pytest.raises(KeyError, match="no such bucket"):
            server(tmp_path, start, after_round=fails, port=port).run()
        resumed = server(tmp_path, lambda address: None, resume=True, port=port).run()
    assert len(resumed.rounds) == 3


def test_mistakes_are_told_at_once(tmp_path: Path) -> None:
    def refused(match: str, **options: Any) -> None:
        with pytest.raises(fedaq.UserError, match=match):
            server(tmp_path / "run", print, **options).run()

    refused("network.port=70000: network.port: it should be less than", port=70000)
    refused("aggregation='middle': aggregation: mean, median, trimmed_mean", aggregation="middle")
    refused("network.nonsense=1: network.nonsense is not a setting", network={"nonsense": 1})
    with pytest.raises(fedaq.FedaqError, match=r"0 of 2 clients connected within 0\.2 s"):
        server(tmp_path / "run", lambda _: None, network={"join_timeout_s": 0.2}).run()
    assert not (tmp_path / "run").exists()


def weighted_mean(updates: Any, weights: Any) -> Any:
    seen.append((updates.shape, tuple(weights)))
    return np.average(updates, axis=0, weights=weights)


seen: list[Any] = []


@pytest.mark.parametrize("scheme", ["fp32", "fedaq"])
def test_a_rule_of_ones_own_aggregates(scheme: str) -> None:
    """The weighted mean, written by hand, is within float32 of the built-in one."""
    seen.clear()
    options: Any = {"clients": 3, "rounds": 2, "scheme": scheme}
    own = fedaq.run("digits", aggregation=weighted_mean, **options)
    built_in = fedaq.run("digits", **options)
    if scheme == "fp32":
        for name, tensor in own.state_dict().items():
            torch.testing.assert_close(tensor, built_in.state_dict()[name], atol=1e-5, rtol=1e-4)
    assert own.final == pytest.approx(built_in.final, abs=0.05)
    assert {shape[0] for shape, _ in seen} == {3}
    assert {weights for _, weights in seen} == {(479, 479, 479)}


def test_a_rule_has_a_name_too() -> None:
    options: Any = {"clients": 3, "rounds": 1, "scheme": "fp32"}
    named = fedaq.run("digits", aggregation="fedaq_server.rounds.rules:median", **options)
    assert weights_of(named.state_dict()) == weights_of(
        fedaq.run("digits", aggregation="median", **options).state_dict()
    )
    given = fedaq.run("digits", aggregation=median, **options)
    assert given.settings["aggregation"] == "fedaq_server.rounds.rules:median"


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (lambda updates, weights: updates, r"returned an array of shape \(2, \d+\) where \(\d+,\)"),
        (lambda updates, weights: 1 / 0, "aggregation <lambda>: ZeroDivisionError"),
        (lambda updates: updates, "aggregation <lambda>: TypeError"),
    ],
)
def test_a_rule_that_fails_is_told_as_the_users(rule: Any, match: str) -> None:
    with pytest.raises(fedaq.UserError, match=match):
        fedaq.run("digits", clients=2, rounds=1, aggregation=rule)
