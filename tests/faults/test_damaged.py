"""Kept files that are damaged: each is made anew, or named with the line that helps."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.cuts import contents, cut_after, gone_on, whole
from faults.federation import FLAGS
from fedaq.cli.inspection import show
from fedaq.cli.wording import sentence_of
from fedaq.codec import kernels
from fedaq.errors import FedaqError, UserError
from fedaq_server.identity.certificates import issue
from fedaq_server.identity.tokens import make_tokens, read_tokens
from fedaq_server.records.saved import read_run
from fedaq_server.rounds import differences

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "of zeros": lambda content: bytes(len(content)),
    "one bit is another": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
}
NEEDED = {
    "round-000002.safetensors": r"round-000002\.safetensors: damaged",
    "held-000001.bin": r"held-000001\.bin: damaged",
    "differences-000001.bin": r"differences-000001\.bin: damaged",
    "start.safetensors": r"start\.safetensors: damaged",
}


@pytest.fixture(scope="module")
def first_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model of another run, for one to begin with."""
    folder = tmp_path_factory.mktemp("damaged") / "first"
    whole(folder)
    return folder / "model.safetensors"


@pytest.fixture
def copied(first_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run that was cut off after two rounds, with a snapshot between them."""
    flags = {**FLAGS, "start_from": first_model}
    monkeypatch.setattr(differences, "MODELS_SINCE", 1000)
    for rounds, name, most in ((1, "one", 1), (2, "two", 100)):
        monkeypatch.setattr(differences, "MOST_SINCE", most)
        folder = tmp_path / "run" if rounds == 1 else tmp_path / "one"
        cut_after(rounds, folder, tmp_path / name, flags)
    return tmp_path / "two"


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_run_needs_to_go_on_is_checked(damage: str, copied: Path) -> None:
    for name, says in NEEDED.items():
        whole = (copied / name).read_bytes()
        (copied / name).write_bytes(DAMAGES[damage](whole))
        with pytest.raises(UserError, match=says) as refusal:
            gone_on(copied)
        assert "put back a copy" in str(refusal.value)
        (copied / name).write_bytes(whole)
    assert gone_on(copied) == 2


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "one bit is another"])
def test_a_damaged_ledger_is_named(damage: str, copied: Path) -> None:
    """What of its log is damaged, SQLite leaves out; the file has the settings from the start."""
    ledger = copied / "ledger.sqlite"
    (copied / "ledger.sqlite-wal").write_bytes(b"")
    ledger.write_bytes(DAMAGES[damage](ledger.read_bytes()))
    before = contents(copied)
    with pytest.raises(UserError, match=r"ledger\.sqlite") as refusal:
        gone_on(copied)
    assert f"--from {copied / 'round-000002.safetensors'}" in str(refusal.value)
    kept = contents(copied)
    assert {name: kept[name] for name in before if "ledger" not in name} == {
        name: before[name] for name in before if "ledger" not in name
    }


@pytest.mark.parametrize("damage", ["empty", "cut short", "of zeros"])
def test_run_json_is_named_and_a_run_that_goes_on_writes_it_anew(damage: str, copied: Path) -> None:
    file = copied / "run.json"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(UserError, match=r"run\.json: not the record .* \(--resume\) writes it"):
        read_run(copied)
    gone_on(copied)
    assert read_run(copied).finished


@pytest.mark.parametrize("damage", ["empty", "cut short", "of zeros"])
def test_captured_payloads_are_named(damage: str, copied: Path) -> None:
    file = next((copied / "payloads").iterdir())
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(UserError, match=rf"{file.name}: (not a captured payload|truncated)"):
        show(file)


def test_tokens_that_are_gone_are_not_taken_for_no_tokens(tmp_path: Path) -> None:
    make_tokens(tmp_path / "tokens", ["kitchen"])
    (tmp_path / "tokens").write_bytes(b"")
    with pytest.raises(UserError, match="tokens: is empty; put back a copy of it, or remove it"):
        read_tokens(tmp_path / "tokens")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ca.crt", "ca.crt and ca.key cannot be read: .*put back a copy"),
        ("ca.key", "ca.crt and ca.key cannot be read: .*put back a copy"),
        ("server/server.crt", "remove it, and name its hosts again with --host"),
    ],
)
def test_damaged_certificates_are_named(name: str, says: str, tmp_path: Path) -> None:
    issue(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=says):
        issue(tmp_path, hosts=["kitchen"])


def test_an_authority_that_was_only_half_made_is_made_anew(tmp_path: Path) -> None:
    issue(tmp_path)
    key = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(UserError, match=r"ca\.crt: No such file"):
        issue(tmp_path)
    shutil.rmtree(tmp_path / "server")
    issue(tmp_path)
    assert (tmp_path / "ca.key").read_bytes() != key


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(60)], ids=["empty", "damaged"])
def test_a_damaged_library_of_the_codec_is_named(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / kernels.LIBRARY.name
    library.write_bytes(content)
    monkeypatch.setattr(kernels, "LIBRARY", library)
    with pytest.raises(FedaqError) as refusal:
        kernels._library.__wrapped__()
    said = sentence_of(refusal.value)
    assert str(library) in said
    assert "install fedaq anew" in said
    assert "\n" not in said
