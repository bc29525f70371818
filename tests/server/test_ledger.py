"""The ledger: what is committed comes back, and nothing else."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import fields, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import Spread
from fedaq.errors import SystemFaultError, UserError
from fedaq.settings import Settings, load_settings
from fedaq_server.conduct import Conduct
from fedaq_server.records.ledger import Committed, Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.rows import Transfer
from fedaq_server.records.run_folder import new_run, resumed_run
from fedaq_server.records.scheme_state import restored, state_of
from fedaq_server.records.sent import Difference, Sent
from fedaq_server.schemes.coded import CodedBudget
from fedaq_server.schemes.loading import load_scheme
from fedaq_server.schemes.packed_budget import Budget, Trend

# Another server, which has the ledger of a folder until its input ends.
HOLDER = """
import sys
from pathlib import Path
from fedaq_server.records.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

SPEC = ModelSpec((TensorSpec("w", (3, 4)), TensorSpec("b", ())))
RECORD = RoundRecord(
    round=1, test_accuracy=0.5, test_loss=0.1 + 0.2, train_loss=nan, uplink_bits=1.0,
    downlink_bits=2.0, uplink_payload_bytes=3, downlink_payload_bytes=4,
    catch_up_payload_bytes=0, uplink_wire_bytes=None, downlink_wire_bytes=5, energy_j=1e-3,
    price=0.0, clients=1, left_out=1, seconds=0.25,
)  # fmt: skip
SPREAD = Spread(-1 / 3, 0.7, 0.1, 0.2, 0.3)


def model(value: float) -> Any:
    return np.full(SPEC.parameters, value, np.float32)


def committed(number: int, settings: Settings, **changes: Any) -> Committed:
    return Committed(
        record=replace(RECORD, round=number),
        transfers=(Transfer("anna", "uplink", 7, True), Transfer("anna", "downlink", 9, True)),
        present={"anna", "carl"},
        ranges={"anna": (SPREAD,), "bert": (SPREAD,) * 2},
        scheme=load_scheme(settings),
        sent=Sent(
            tuple(Difference(n, bytes([n]) * 8, 10 * n, 0, 100 * n, (1, n)) for n in range(number))
        ),
        conduct=Conduct(settings.limits),
        **changes,
    )


def test_what_was_committed_comes_back(tmp_path: Path) -> None:
    settings = load_settings(environment={})
    ledger = Ledger(tmp_path)
    ledger.begin(settings.model_dump(mode="json"))
    for number in (1, 2):
        ledger.write_model(number, SPEC, model(number))
        ledger.commit(committed(number, settings))
    run_id = ledger.run_id
    ledger.close()

    again = Ledger(tmp_path)
    first, second = again.records()
    # NaN is not equal to itself; repr tells every bit of the others.
    assert repr(first) == repr(RECORD)
    assert repr(second) == repr(replace(RECORD, round=2))
    assert again.present() == {"anna", "carl"}
    assert again.ranges(["anna", "bert", "carl", "dora"]) == {
        "anna": (SPREAD,),
        "bert": (SPREAD,) * 2,
    }
    assert again.sent() == committed(2, settings).sent
    assert Settings.model_validate(again.settings()) == settings
    assert again.run_id == run_id != ""
    out = model(0)
    again.read_model(2, SPEC, out)
    assert out.tobytes() == model(2).tobytes()
    assert not again.is_over


def test_a_model_that_was_not_committed_is_not_the_runs(tmp_path: Path) -> None:
    """The server was killed between the model and its round."""
    settings = load_settings(environment={})
    ledger = Ledger(tmp_path)
    ledger.begin(settings.model_dump(mode="json"))
    ledger.write_model(1, SPEC, model(1))
    ledger.commit(committed(1, settings))
    ledger.write_model(2, SPEC, model(2))
    ledger.close()
    again = Ledger(tmp_path)
    assert [record.round for record in again.records()] == [1]
    out = model(0)
    again.read_model(1, SPEC, out)
    assert out.tobytes() == model(1).tobytes()


def test_a_round_is_committed_whole_or_not_at_all(tmp_path: Path) -> None:
    settings = load_settings(environment={})
    ledger = Ledger(tmp_path)
    ledger.begin(settings.model_dump(mode="json"))
    ledger.commit(committed(1, settings))
    twice = replace(
        committed(2, settings),
        transfers=(Transfer("anna", "uplink", 7, True), Transfer("anna", "uplink", 8, True)),
    )
    with pytest.raises(sqlite3.IntegrityError):
        ledger.commit(twice)
    assert [record.round for record in ledger.records()] == [1]
    assert len(ledger.sent().differences) == 1


def test_one_server_at_a_time(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    with pytest.raises(UserError, match="another server is at work on this run"):
        Ledger(tmp_path)
    first.close()
    Ledger(tmp_path).close()


def test_one_process_at_a_time_until_it_is_killed(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(UserError, match="another server is at work on this run"):
            Ledger(tmp_path)
        # Readers see what is committed all the same.
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as reader:
            assert reader.execute("SELECT COUNT(*) FROM rounds").fetchone() == (0,)
    finally:
        other.kill()
        other.communicate()
    Ledger(tmp_path).close()


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite.lock").mkdir()
    with pytest.raises(SystemFaultError, match=r"ledger\.sqlite\.lock: Is a directory"):
        Ledger(tmp_path)


def test_what_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but long enough to be one" * 100)
    with pytest.raises(UserError, match=r"ledger\.sqlite: not the ledger of a run"):
        Ledger(tmp_path)


def test_a_ledger_of_another_version(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin({})
    ledger._database.execute("UPDATE run SET value = '99' WHERE name = 'version'")
    ledger._database.commit()
    ledger.close()
    with pytest.raises(UserError, match="has version 99; this fedaq reads 8"):
        Ledger(tmp_path)


def test_a_new_ledger_has_a_column_for_every_field_of_a_round(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(rounds)")]
    assert columns == [field.name for field in fields(RoundRecord)]


def test_the_order_of_columns_does_not_matter(tmp_path: Path) -> None:
    """Columns that a later version adds come last, wherever the code around has them."""
    Ledger(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        tables = [name for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        )]  # fmt: skip
        for table in tables:
            columns = list(database.execute(f"PRAGMA table_info({table})"))
            keys = [row[1] for row in columns if row[5]]
            kept = database.execute(f"SELECT {columns[0][1]}, {columns[1][1]} FROM {table}")
            rows = kept.fetchall()
            turned = [f"{row[1]} {row[2]}" for row in reversed(columns)]
            database.execute(f"DROP TABLE {table}")
            database.execute(
                f"CREATE TABLE {table} ({', '.join(turned)}, PRIMARY KEY ({', '.join(keys)}))"
            )
            database.executemany(
                f"INSERT INTO {table} ({columns[0][1]}, {columns[1][1]}) VALUES (?, ?)", rows
            )
        database.commit()
    test_what_was_committed_comes_back(tmp_path)


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    """A round in which one of a hundred clients took part writes the row of that one."""
    settings = load_settings(environment={})
    everyone = {f"client-{n}": (SPREAD,) for n in range(100)}
    ledger = Ledger(tmp_path)
    ledger.commit(replace(committed(1, settings), present=everyone.keys(), ranges=everyone))
    present, changed = everyone.keys() - {"client-8"}, {"client-7": (replace(SPREAD, lo=-1.0),)}
    before = ledger._database.total_changes
    ledger.commit(replace(committed(2, settings), present=present, ranges=changed))
    # The round, two transfers, two clients, a difference, what clients hold after it, the scheme,
    # the conduct and the accounts.
    assert ledger._database.total_changes - before == 10
    # Those of clients that took no part are read from the disk.
    assert ledger.ranges(everyone) == {**everyone, **changed}
    ledger.close()
    again = Ledger(tmp_path)
    assert again.present() == present
    assert again.ranges(everyone) == {**everyone, **changed}


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_a_broken_model_is_named(content: bytes, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_model(1, SPEC, model(1))
    path = tmp_path / "round-000001.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"round-000001\.safetensors: not a model"):
        ledger.read_model(1, SPEC, model(0))


def test_a_model_of_another_task_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_model(1, SPEC, model(1))
    other = ModelSpec((TensorSpec("w", (4, 3)), TensorSpec("b", ())))
    with pytest.raises(UserError, match="w is float32 3x4; the task's model has float32 w 4x3"):
        ledger.read_model(1, other, model(0))


# ---- Schemes -----------------------------------------------------------------


@pytest.mark.parametrize(
    "assignments",
    [
        ["scheme=fp32"], ["scheme=fixed"], ["scheme=adaquantfl"], ["scheme=dadaquant"],
        ["scheme=feddq"], ["scheme=fedaq"], ["scheme=fedaq", "energy.budget_j=3"],
        ["scheme=fedaq", "coding.entropy=false", "coding.downlink=model"],
        ["scheme=fedaq", "energy.budget_j=3", "coding.entropy=false", "coding.downlink=model"],
    ],
)  # fmt: skip
def test_every_scheme_has_a_state_that_comes_back(assignments: list[str]) -> None:
    scheme = load_scheme(load_settings(environment={}, assignments=assignments))
    assert restored(scheme, state_of(scheme)) == scheme


def test_what_schemes_learned_comes_back_bit_for_bit() -> None:
    coded = CodedBudget(3.0, spent_j=0.1 + 0.2, longer={"anna": 1 / 3}, power=2 / 3)
    settings = load_settings(environment={}).fedaq
    packed = Budget(3.0, settings, 0.1, Trend(1 / 3, -0.1), Trend(2 / 3, 0.2), {"anna": 0.7}, True)
    for fresh, learned in ((CodedBudget(3.0), coded), (Budget(3.0, settings), packed)):
        assert restored(fresh, state_of(learned)) == learned


class Stateless:
    """A user's scheme that is no dataclass."""


def test_a_scheme_whose_state_cannot_be_kept_is_not_resumed() -> None:
    scheme: Any = Stateless()
    assert state_of(scheme) is None
    with pytest.raises(UserError, match="Stateless, which is no dataclass"):
        restored(scheme, None)


# ---- Folders -----------------------------------------------------------------


def settings_given(*assignments: str) -> Any:
    return lambda begun: load_settings(environment={}, assignments=assignments, begun=begun)


def test_a_run_goes_on_with_its_settings(tmp_path: Path) -> None:
    with resumed_run(tmp_path / "new", settings_given("rounds=7", "network.port=1234")):
        pass
    with resumed_run(tmp_path / "new", settings_given("network.port=4321")) as (settings, _):
        assert (settings.rounds, settings.network.port) == (7, 4321)
    with (
        pytest.raises(UserError, match="--set rounds=8: the run has begun with rounds = 7"),
        resumed_run(tmp_path / "new", settings_given("rounds=8")),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"begun with energy\.broadcast = False"),
        resumed_run(tmp_path / "new", settings_given("energy.broadcast=true")),
    ):
        pass


def test_a_run_that_is_over_is_not_resumed(tmp_path: Path) -> None:
    with resumed_run(tmp_path, settings_given()) as (_, ledger):
        ledger.finish()
    with (
        pytest.raises(UserError, match="the run is over after 0 rounds"),
        resumed_run(tmp_path, settings_given()),
    ):
        pass


def test_a_new_run_that_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with new_run(tmp_path / "new", load_settings(environment={})):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_run_is_not_taken_for_another(tmp_path: Path) -> None:
    with resumed_run(tmp_path, settings_given()):
        pass
    with (
        pytest.raises(UserError, match=r"a run is in there already.*--resume"),
        new_run(tmp_path, load_settings(environment={})),
    ):
        pass
