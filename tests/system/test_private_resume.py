"""Private runs whose server is killed with what it charged for a sum not followed by its round."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedaq_server.privacy.account import epsilon_of
from system.commands import PATIENCE_S, Commands, Running, free_port

ROUNDS, CLIENTS = 6, 3
EPSILON, DELTA = 200.0, 1e-5


def kept(folder: Path) -> tuple[dict[str, Any], int]:
    """Return the account of privacy and the number of rounds that are done."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as database:
        found = database.execute("SELECT value FROM run WHERE name = 'privacy'").fetchone()
        (done,) = database.execute("SELECT COUNT(*) FROM rounds").fetchone()
    return json.loads(found[0]) if found else {"releases": 0}, done


def lost_so_far(folder: Path) -> int:
    """Return how many sums were charged for whose rounds are not done."""
    account, done = kept(folder)
    return int(account["releases"]) - done


def kill_once_charged(server: Running, folder: Path, lost: int) -> int:
    """Kill a server that charged for a sum whose round is not done; return all that were lost."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert server.process.poll() is None, server.err.read_text()
        if lost_so_far(folder) > lost:
            server.process.kill()
            server.process.wait()
            return lost_so_far(folder)
    raise AssertionError("no sum was charged for")


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_a_server_that_is_killed_overspends_no_epsilon(masked: bool, commands: Commands) -> None:
    settings = [f"privacy.epsilon={EPSILON}", f"privacy.secure_aggregation={masked}"]
    words = [word for setting in settings for word in ("--set", setting)]
    port, folder = free_port(), commands.folder / "wild"
    server = commands.start(
        "server", "--task", "digits", "--clients", CLIENTS, "--rounds", ROUNDS, *words,
        "--port", port, "--out", "wild",
    )  # fmt: skip
    clients = [
        commands.start("client", "--server", f"127.0.0.1:{port}", "--partition", f"{n}/{CLIENTS}")
        for n in range(1, CLIENTS + 1)
    ]
    lost = 0
    server.wait_for("round 1/")
    for _ in range(2):
        lost = kill_once_charged(server, folder, lost)
        server = commands.start("server", "--resume", "wild")
    ends = [running.wait() for running in (server, *clients)]
    assert [end.code for end in ends] == [0] * (1 + CLIENTS), ends
    account, done = kept(folder)
    assert lost >= 1
    assert (account["releases"], done) == (ROUNDS, ROUNDS - lost)
    facts = json.loads((folder / "run.json").read_text())
    told = [entry["epsilon"] for entry in facts["rounds"]]
    assert told == sorted(told)
    assert told[-1] == epsilon_of(facts["privacy"]["noise_multiplier"], ROUNDS, DELTA)
    assert told[-1] == facts["privacy"]["spent"]
    assert 0.99 * EPSILON < told[-1] <= EPSILON
    assert f"after {ROUNDS - lost} of {ROUNDS} rounds" in ends[0].out + ends[0].err
