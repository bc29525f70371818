"""Runs that older versions began: this one goes on with them."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedaq.settings import Settings, load_settings
from fedaq.tasks import load_task
from fedaq.tasks.partition import Partition
from fedaq_client.sharing import local_data
from fedaq_client.training import Learner
from fedaq_lab.local import federate
from fedaq_server.records import migrations
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.run_folder import resumed_run
from fedaq_server.run import Run
from fedaq_server.serve import serve
from system.live import take_part

LEDGERS = Path(__file__).parent / "ledgers"
# All that differs between equal runs.
OF_THE_MOMENT = ("seconds", "uplink_wire_bytes", "downlink_wire_bytes")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a run of 16 rounds that version 1 had begun and was killed in after 9.

    It was made by ``fedaq server --task system.exact_model:task --clients 2 --rounds 16 --scheme
    fixed --set fixed.uplink_bits=3 --set fixed.downlink_bits=2 --set coding.downlink=difference
    --set coding.entropy=true`` at commit 7fb06ab. The same version went on with a copy, with
    clients that were started again, and that is what lies in ``version-1-resumed``.
    """
    return shutil.copytree(LEDGERS / "version-1", tmp_path / "old")


def settings_to_go_on(begun: Any) -> Settings:
    return load_settings(environment={}, flags={"network.port": 0}, begun=begun)


def gone_on(folder: Path) -> None:
    async def go_on() -> None:
        with resumed_run(folder, settings_to_go_on) as (settings, ledger):
            run = Run(settings, ledger, lambda record: None)
            port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(serve(run, port.set_result))
                address = f"127.0.0.1:{await port}"
                for number in range(2):
                    group.create_task(
                        take_part(address, f"client-{number + 1}", part(number, settings))
                    )

    asyncio.run(go_on())


def part(number: int, settings: Settings) -> Learner:
    task = load_task(settings.task, None)
    data = local_data(
        task.train_data(None), Partition(number, 2), settings.partition, settings.seed
    )
    return Learner(task, data, settings.seed)


def rounds(folder: Path) -> list[dict[str, Any]]:
    document = json.loads((folder / "run.json").read_text())
    return [
        {name: value for name, value in each.items() if name not in OF_THE_MOMENT}
        for each in document["rounds"]
    ]


def test_a_run_that_version_1_began_comes_to_the_same_end(old: Path, tmp_path: Path) -> None:
    """Differences that version 1 had sent bring the clients to the model, and cost the same."""
    gone_on(old)
    expected = LEDGERS / "version-1-resumed"
    assert rounds(old) == rounds(expected)
    assert rounds(old)[9]["catch_up_payload_bytes"] > 0
    model = (old / "model.safetensors").read_bytes()
    assert model == (expected / "model.safetensors").read_bytes()
    assert sorted(path.name for path in old.iterdir()) == [
        "ledger.sqlite", "model.safetensors", "run.json",
    ]  # fmt: skip
    with closing(Ledger(old)) as ledger:
        settings = settings_to_go_on(ledger.settings())
    (tmp_path / "calm").mkdir()
    calm = Run(settings, Ledger(tmp_path / "calm"), lambda record: None)
    asyncio.run(federate(calm))
    assert (tmp_path / "calm" / "model.safetensors").read_bytes() == model


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
        return {
            name: sorted(row[1:] for row in database.execute(f"PRAGMA table_info({name})"))
            for name in names
        }


def test_an_old_ledger_gets_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    Ledger(old).close()
    Ledger(tmp_path / "new").close()
    assert tables(old / "ledger.sqlite") == tables(tmp_path / "new" / "ledger.sqlite")


def test_a_migration_that_is_interrupted_is_made_again(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables(old / "ledger.sqlite")

    def interrupted(database: sqlite3.Connection, folder: Path) -> None:
        migrations._snapshots(database, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_STEPS", (migrations._first_tables, interrupted))
        with pytest.raises(KeyboardInterrupt):
            Ledger(old)
    assert tables(old / "ledger.sqlite") == before
    gone_on(old)
    assert rounds(old) == rounds(LEDGERS / "version-1-resumed")
