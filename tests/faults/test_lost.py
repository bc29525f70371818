"""Runs whose ledger is lost in part: none of them begins anew over what is there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.cuts import contents, cut_after, gone_on, settings_of, whole
from faults.federation import ROUNDS
from fedaq.errors import UserError
from fedaq_server.records import ledger as ledgers
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.run_folder import new_run

LEDGER = "ledger.sqlite"


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run that was cut off after a round which only the log has."""
    monkeypatch.setattr(ledgers, "LOG_S", 1e9)
    cut_after(2, tmp_path / "run", tmp_path / "cut")
    return tmp_path / "cut"


@pytest.fixture
def old(cut: Path) -> Path:
    """Return the same, as an older version left it: not even the settings are in the file."""
    empty = cut.with_name("empty")
    empty.mkdir()
    Ledger(empty).close()
    shutil.copy(empty / LEDGER, cut / LEDGER)
    for kind in ("wal", "shm"):
        (cut / f"{LEDGER}-{kind}").unlink(missing_ok=True)
    return cut


LOST: dict[str, tuple[Callable[[Path], object], str]] = {
    "no ledger": (lambda f: (f / LEDGER).unlink(), "ledger.sqlite is missing"),
    "an empty ledger": (lambda f: (f / LEDGER).write_bytes(b""), "ledger.sqlite is empty"),
}


@pytest.mark.parametrize("name", LOST)
def test_a_run_without_its_ledger_is_not_begun_anew(name: str, cut: Path) -> None:
    lose, says = LOST[name]
    kept = (cut / LEDGER).read_bytes()
    lose(cut)
    before = contents(cut)
    with pytest.raises(UserError) as refusal:
        gone_on(cut)
    assert f"differences-000000.bin of a run is there, but {says}" in str(refusal.value) or (
        f"round-000002.safetensors of a run is there, but {says}" in str(refusal.value)
    )
    assert f"--from {cut / 'round-000002.safetensors'}" in str(refusal.value)
    assert contents(cut) == before
    (cut / LEDGER).write_bytes(kept)
    assert gone_on(cut) == 2


def test_a_ledger_of_which_only_the_log_had_the_run(old: Path) -> None:
    before = contents(old)
    with pytest.raises(UserError, match=r"has none of it, for ledger\.sqlite-wal is missing"):
        gone_on(old)
    assert contents(old) == before


def test_a_run_that_lost_its_log_goes_on_after_an_earlier_round(
    cut: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The settings are in the file from the beginning; here even the first round was in the log."""
    calm = tmp_path / "calm"
    whole(calm)
    (cut / f"{LEDGER}-wal").unlink()
    (cut / f"{LEDGER}-shm").unlink(missing_ok=True)
    assert gone_on(cut) == 0
    assert "round-000002.safetensors is there, but the ledger ends with round 0" in caplog.text
    name = "model.safetensors"
    assert (cut / name).read_bytes() == (calm / name).read_bytes()


def test_every_file_of_a_run_keeps_a_new_one_out(cut: Path, tmp_path: Path) -> None:
    for name in contents(cut):
        if name.startswith(("payloads", LEDGER)):
            continue
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(cut / name, folder)
        with (
            pytest.raises(UserError, match="a run is in there already"),
            new_run(folder, settings_of(None)),
        ):
            pass
        assert [path.name for path in folder.iterdir()] == [name]


def test_a_folder_in_which_nothing_began_is_begun(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    assert gone_on(tmp_path) == 0
    with Path(tmp_path / "run.json").open() as file:
        assert file.read().count('"round": ') == ROUNDS
