"""What a long run keeps: enough for every client and every crash, and no more with every round."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaq.errors import UserError
from fedaq.settings import load_settings
from fedaq_server.conduct import Conduct
from fedaq_server.records import ledger as ledgers
from fedaq_server.records.ledger import Committed, Ledger
from fedaq_server.records.sent import Difference, Sent
from fedaq_server.rounds import differences
from fedaq_server.rounds.differences import UP_TO_DATE, CatchUp, History
from fedaq_server.schemes.loading import load_scheme
from server.test_history import SPEC, Server, added, beginning, listened
from server.test_ledger import RECORD

SETTINGS = load_settings(environment={})
# Of a model that costs about a thousand bytes: differences of a snapshot, rounds, and how many of
# them are enough for three snapshots, where every state of every round is caught up from.
FEW, ROUNDS, FEW_ROUNDS = 4, 30, 14


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "MOST_SINCE", FEW)


# ---- The decision ------------------------------------------------------------


def by_the_old_rule(
    every: list[Difference], whole_bytes: int, digest: bytes, holds: bytes, count: int
) -> CatchUp:
    """Decide as when all differences of a run were kept."""
    at = digest if count == len(every) else every[count].base
    if holds in (at, digest):
        return UP_TO_DATE
    missed: list[Difference] = []
    known = False
    for difference in reversed(every[:count]):
        if known:
            break
        missed.insert(0, difference)
        known = difference.base == holds
    missed_bytes = sum(difference.payload_bytes for difference in missed)
    if known and missed_bytes < whole_bytes:
        return CatchUp(tuple(missed), payload_bytes=missed_bytes)
    return CatchUp(whole=True, payload_bytes=whole_bytes)


WHOLE = 4 * SPEC.parameters + 4 * 6
COSTS = st.one_of(
    st.integers(1, 500), st.integers(800, 5000), st.sampled_from([WHOLE // 4, WHOLE // 2, WHOLE])
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(COSTS, st.booleans(), st.booleans()), max_size=15))
def test_who_is_sent_what_does_not_depend_on_what_was_dropped(
    rounds: list[tuple[int, bool, bool]],
) -> None:
    """For all that a client could hold, within a round and between two, and after restarts."""
    with TemporaryDirectory() as name:
        server = Server(beginning(Path(name)))
        every: list[Difference] = []
        for cost, changes, restarted in rounds:
            server.advance((3, 3, 3, 1) if changes else (0, 0, 0, 0), 0.01, cost)
            history, holders = server.history, [b"", b"unknown!", *server.digests]
            every.append(history.sent.differences[-1])
            for count in (len(every) - 1, len(every)):
                for holds in holders:
                    expected = by_the_old_rule(
                        every, history.whole_bytes, history.digest, holds, count
                    )
                    assert history.catch_up(holds, count) == expected
            history.settle()
            for holds in holders:
                expected = by_the_old_rule(
                    every, history.whole_bytes, history.digest, holds, len(every)
                )
                assert history.catch_up(holds, len(every)) == expected
            if restarted:
                history.close()
                server.history = History(SPEC, server.models[0].copy(), Path(name), history.sent)
                assert server.history.held.tobytes() == server.models[-1].tobytes()
        server.history.close()


# ---- Crashes -----------------------------------------------------------------


@dataclass
class Federation:
    """What a server does to the disk in a round, step by step."""

    folder: Path
    ledger: Ledger = field(init=False)
    server: Server = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.folder)
        self.ledger.begin(SETTINGS.model_dump(mode="json"))
        self.server = Server(beginning(self.folder))

    def round(self, number: int, cost: int) -> Iterator[str]:
        """Carry out a round; yield after each step."""
        history = self.server.history
        self.server.advance((3, 3, 3, 1), 0.01, cost)
        yield "sent"
        self.ledger.write_model(number, SPEC, history.held)
        yield "model written"
        history.settle()
        yield "settled"
        self.ledger.commit(committed(number, history.sent))
        yield "committed"


def committed(number: int, sent: Sent) -> Committed:
    return Committed(
        replace(RECORD, round=number), (), set(), {}, load_scheme(SETTINGS), sent,
        Conduct(SETTINGS.limits),
    )  # fmt: skip


def copied(folder: Path, *, log: bool = True) -> Path:
    """Return the folder as a server that is killed now leaves it, or one that also lost the log."""
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    if not log:
        (copy / "ledger.sqlite-wal").unlink(missing_ok=True)
        (copy / "ledger.sqlite-shm").unlink(missing_ok=True)
    return copy


def check_resumed(folder: Path, server: Server) -> int:
    """Check that a run goes on, and that who missed a round is caught up; return its rounds."""
    ledger = Ledger(folder)
    done = ledger.rounds_done
    models = server.models
    history = History(SPEC, models[0].copy(), folder, ledger.sent())
    assert history.held.tobytes() == models[done].tobytes()
    assert history.past.noted.tobytes() == server.pasts[done].noted.tobytes()
    assert history.digest == server.digests[done]
    assert history.sent.count == done
    out = np.zeros(SPEC.parameters, np.float32)
    if done:
        ledger.read_model(done, SPEC, out)
        assert out.tobytes() == models[done].tobytes()
    check_caught_up(history, server, done)
    history.close()
    ledger.close()
    return done


def check_caught_up(history: History, server: Server, done: int) -> None:
    with ThreadPoolExecutor(1) as worker:
        for behind in range(done + 1):
            catch_up = history.catch_up(server.digests[behind], history.sent.count)
            if not catch_up.whole:
                messages = listened(history.frames(catch_up.missed, worker))
                got, digest = added(server.models[behind], server.pasts[behind], messages)
                assert got.tobytes() == history.held.tobytes()
                assert not messages or digest == history.digest


@pytest.mark.parametrize("cost", [1, 150, 3000])
def test_a_server_that_is_killed_between_any_two_steps_goes_on(cost: int, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    federation = Federation(tmp_path / "run")
    for number in range(1, FEW_ROUNDS + 1):
        for step in federation.round(number, cost):
            done = check_resumed(copied(federation.folder), federation.server)
            assert done == (number if step == "committed" else number - 1)


def test_a_server_that_lost_its_log_goes_on_from_an_earlier_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is brought into the file now and then; what that names is kept as long."""
    monkeypatch.setattr(ledgers, "LOG_BYTES", 50_000)
    (tmp_path / "run").mkdir()
    federation = Federation(tmp_path / "run")
    found = set()
    for number in range(1, ROUNDS + 1):
        for _ in federation.round(number, 150):
            copy = copied(federation.folder, log=False)
            done = check_resumed(copy, federation.server)
            assert number - done <= 10
            found.add(done)
    assert 3 < len(found) < ROUNDS


def test_a_run_that_went_back_goes_on_over_what_is_left_of_later_rounds(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    federation = Federation(tmp_path / "run")
    for number in range(1, FEW + 1):
        for step in federation.round(number, 1):
            if (number, step) == (FEW, "settled"):
                copy = copied(federation.folder)
    assert (copy / f"held-{FEW:06}.bin").exists()
    ledger = Ledger(copy)
    assert ledger.rounds_done == FEW - 1
    history = History(SPEC, federation.server.models[0].copy(), copy, ledger.sent())
    # It comes to other differences than before: a client was there that now is not.
    again = Server(history, rng=np.random.default_rng(7))
    for number in range(FEW, 3 * FEW):
        again.advance((3, 3, 3, 1), 0.01)
        ledger.write_model(number, SPEC, history.held)
        history.settle()
        ledger.commit(committed(number, history.sent))
    history.close()
    ledger.close()
    resumed = Ledger(copy)
    last = History(SPEC, federation.server.models[0].copy(), copy, resumed.sent())
    assert last.held.tobytes() == again.models[-1].tobytes()


# ---- Bounds ------------------------------------------------------------------


@pytest.mark.parametrize("cost", [20, 150, 3000])
def test_what_is_kept_does_not_grow_with_the_rounds(cost: int, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    federation = Federation(tmp_path / "run")
    history = federation.server.history
    sizes, counts, changes = [], [], []
    for number in range(1, 301):
        before = federation.ledger._database.total_changes
        for _ in federation.round(number, cost):
            pass
        changes.append(federation.ledger._database.total_changes - before)
        counts.append(len(history.sent.differences))
        files = [path for path in federation.folder.iterdir() if "ledger" not in path.name]
        sizes.append(sum(path.stat().st_size for path in files))
    most = history.whole_bytes // cost + 2 * FEW
    assert max(counts[100:]) == max(counts[200:]) <= most
    assert max(sizes[100:]) == max(sizes[200:])
    # A round, what it says of the run, a difference; with a snapshot, those that it makes needless.
    assert max(changes[100:]) == max(changes[200:]) <= 10 + most
    assert sum(changes[200:]) / 100 < 10


def test_a_snapshot_that_is_not_the_runs_is_noticed(tmp_path: Path) -> None:
    server = Server(beginning(tmp_path))
    for _ in range(FEW + 1):
        server.advance((3, 3, 3, 1), 0.01)
        server.history.settle()
    path = tmp_path / f"held-{FEW:06}.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"held-000004\.bin: damaged, it holds other differences"):
        History(SPEC, server.models[0].copy(), tmp_path, server.history.sent)


@pytest.mark.parametrize("left", [None, 10])
def test_a_segment_that_is_gone_or_cut_off_is_noticed(left: int | None, tmp_path: Path) -> None:
    server = Server(beginning(tmp_path))
    for _ in range(FEW + 1):
        server.advance((3, 3, 3, 1), 0.01)
        server.history.settle()
    path = tmp_path / "differences-000000.bin"
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=r"differences-000000\.bin: "):
        History(SPEC, server.models[0].copy(), tmp_path, server.history.sent)
