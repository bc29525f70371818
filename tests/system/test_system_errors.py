"""What commands say when the system refuses something: one line, with the cause and what helps."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fedaq.errors import refused
from system.commands import Commands, Ended, free_port

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits are set by a shell of Linux")


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


NARROW = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Latin 1": {"PYTHONIOENCODING": "latin-1"},
}
OLD_PROTOBUF = {
    "__init__.py": "__version__ = '4.25.0'",
    "descriptor.py": "",
    "descriptor_pool.py": "",
    "symbol_database.py": "",
    "message.py": "class DecodeError(Exception): pass",
}
REFUSING = """
class VersionError(Exception): pass
class Domain: PUBLIC = 1
def ValidateProtobufRuntimeVersion(*versions): raise VersionError("Detected incompatible versions")
"""
FITS_NOT = "protobuf 4.25.0 in {} does not fit: fedaq needs protobuf>="


def one_line(ended: Ended) -> str:
    """Return the one line of a failure, which is no riddle."""
    last = (ended.out + ended.err).strip().splitlines()[-1]
    assert ended.code in (1, 2), ended
    assert "this is a bug" not in ended.out + ended.err
    assert "Traceback" not in ended.out + ended.err
    return last


@pytest.fixture(params=["refuses what was made for a newer one", "is older than such checks"])
def old_protobuf(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a folder for PYTHONPATH with an older protobuf."""
    package = tmp_path / "older" / "google" / "protobuf"
    package.mkdir(parents=True)
    for name, text in OLD_PROTOBUF.items():
        (package / name).write_text(text)
    if "refuses" in request.param:
        (package / "runtime_version.py").write_text(REFUSING)
    return tmp_path / "older"


@pytest.mark.parametrize(
    "line",
    [("server", "--clients", 2), ("client",), ("run", "--rounds", 1), ("inspect", "some")],
    ids=lambda line: line[0],
)
def test_an_older_protobuf_in_front(
    line: tuple[object, ...], old_protobuf: Path, commands: Commands
) -> None:
    (commands.folder / "some").write_bytes(b"")
    said = one_line(commands.run(*line, env={"PYTHONPATH": str(old_protobuf)}))
    assert FITS_NOT.format(old_protobuf / "google" / "protobuf") in said
    assert "pip install --upgrade" in said


@pytest.mark.parametrize("side", ["server", "client"])
def test_the_doctor_outlives_an_older_protobuf(
    side: str, old_protobuf: Path, commands: Commands
) -> None:
    ended = commands.run("doctor", side, env={"PYTHONPATH": str(old_protobuf)})
    assert ended.code == 1
    for subject in ("versions", "clock", "cores", "threads", "codec"):
        assert f" {subject} " in ended.out
    assert "✗ packages" in ended.out
    assert FITS_NOT.format(old_protobuf / "google" / "protobuf") in ended.out
    assert "1 must be put right before this can work" in ended.out


@pytest.mark.parametrize(
    "encoding",
    [
        "the C locale",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ascii", "Latin 1")),
    ],
)
def test_an_output_that_lacks_a_character(encoding: str, commands: Commands) -> None:
    """Marks of the doctor, borders of the table, and the name of a folder."""
    doctor = commands.start("doctor", "server", "--port", free_port(), env=NARROW[encoding])
    # A name goes to other processes as the locale has it.
    engine = "processes" if encoding == "the C locale" else "local"
    run = commands.run(
        "run", "--clients", 2, "--rounds", 1, "--engine", engine, "--out", "läufe-✓",
        env=NARROW[encoding],
    )  # fmt: skip
    assert (run.code, run.err) == (0, "")
    assert "results: " in run.out
    assert (commands.folder / "läufe-✓" / "model.safetensors").exists()
    assert doctor.wait().code == 0
    again = commands.run("server", "--out", "läufe-✓", env=NARROW[encoding])
    assert "a run is in there already" in one_line(again)


@LINUX
@pytest.mark.parametrize(
    "line",
    [
        ("run", "--clients", 2, "--rounds", 1, "--engine", "local", "--out", "run"),
        ("server", "--clients", 2, "--out", "run"),
        ("certs", "certs", "--host", "kitchen"),
    ],
    ids=lambda line: line[0],
)
def test_files_that_cannot_grow(line: tuple[object, ...], commands: Commands) -> None:
    """A limit that holds for root, too, and for SQLite."""
    ended = commands.run(*line, limits="ulimit -f 1")
    said = one_line(ended)
    assert "File too large; raise the limit of the size of files: ulimit -f" in said


@LINUX
def test_a_server_that_finds_no_more_room_goes_on_when_there_is_some(commands: Commands) -> None:
    """Its clients wait for it; the model is that of a run in one process that found room."""
    common = ("--task", "digits", "--clients", 2, "--rounds", 8)
    calm = commands.start("run", *common, "--engine", "local", "--out", "calm")
    port = free_port()
    server = commands.start(
        "server", *common, "--port", port, "--out", "wild", limits="ulimit -f 256"
    )
    clients = [
        commands.start("client", "--server", f"127.0.0.1:{port}", "--partition", part)
        for part in ("1/2", "2/2")
    ]
    said = one_line(server.wait())
    assert "wild/" in said
    assert "rounds are safe, then go on with: fedaq server --resume wild" in said
    server = commands.start("server", "--resume", "wild")
    ends = [running.wait() for running in (calm, server, *clients)]
    assert [end.code for end in ends] == [0, 0, 0, 0], ends
    models = [commands.folder / name / "model.safetensors" for name in ("calm", "wild")]
    assert models[0].read_bytes() == models[1].read_bytes()


@LINUX
def test_the_doctor_outlives_too_few_open_files(commands: Commands) -> None:
    ended = commands.run("doctor", "server", "--port", free_port(), limits="ulimit -n 16")
    assert ended.code == 1
    assert "✗ open files   16 allowed" in ended.out
    assert "ulimit -n" in ended.out


@pytest.mark.parametrize(
    ("number", "helps"),
    [
        (errno.ENOSPC, "make room on that disk"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mount it writable"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EACCES, "another user's"),
        (errno.EIO, "see dmesg"),
    ],
    ids=errno.errorcode.get,
)
def test_each_refusal_says_what_helps(number: int, helps: str) -> None:
    said = refused(OSError(number, os.strerror(number), "runs/first/run.json"))
    assert said is not None
    assert said.startswith(f"runs/first/run.json: {os.strerror(number)}; ")
    assert helps in said


def test_what_is_no_refusal_of_the_system() -> None:
    assert refused(TimeoutError()) is None
