"""Whatever a user gets wrong is said in one line, with the exit code that fits."""

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedaq import PROTOCOL_VERSION
from fedaq.cli import app
from fedaq.process.stopping import STOP_SIGNALS
from system.commands import Commands, Ended, free_port

FILES = {
    "typo.toml": "rouns = 3\n",
    "section.toml": "[fixd]\nuplink_bits = 3\n",
    "malformed.toml": "rounds = \n",
    "binary.toml": "\x00\x01",
    "bits.toml": "[fixed]\nuplink_bits = 17\n",
    "imports.py": "from numpy import no_such_name\n",
    "missing.py": "import no_such_module\n",
    "raises.py": "raise ValueError('two\\nlines')\n",
    "syntax.py": "def f(:\n",
    "nothing.py": "task = 3\ndef function(data): return None\ndef broken(data): return 1 / 0\n",
    "other.py": (
        "from dataclasses import replace\nfrom torch import nn\n"
        "from fedaq.tasks.digits import task as digits\n"
        "task = replace(digits, model=lambda: nn.Linear(64, 10))\n"
    ),
    "junk.payload": "this is no payload",
    "run.json": '{"rounds": "many"}',
    "file": "",
    "old/run.json": "{}",
}


Call = Callable[..., Ended]


@pytest.fixture
def written(commands: Commands) -> Commands:
    """`fedaq` in a folder of files with mistakes."""
    for name, text in FILES.items():
        path = commands.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return commands


@pytest.fixture
def call(
    written: Commands, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """`fedaq` in the same folder, but in this process, which has its libraries loaded."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    monkeypatch.chdir(written.folder)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def called(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["fedaq", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, *capfd.readouterr())

    yield called
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def said(ended: Ended, code: int) -> str:
    """Return the one line that a command said before it ended with this code."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.out
    assert ended.err.startswith("fedaq: "), ended
    assert ended.err.count("\n") == 1, ended
    assert ended.err.endswith("\n")
    return ended.err


# What is wrong can be seen before anything is imported or started.
AT_ONCE = {
    "an unknown command": ("rum", "No such command 'rum'"),
    "an unknown flag": ("run --bogus 3", "--bogus", "see fedaq run --help"),
    "a flag without a value": ("run --rounds", "--rounds", "--help"),
    "a superfluous word": ("run now", "(now)", "see fedaq run --help"),
    "no path to inspect": ("inspect", "Missing argument", "see fedaq inspect --help"),
    "a bad number": ("run --rounds ten", "--rounds", "valid int", "see fedaq run --help"),
    "an unknown engine": ("run --engine steam", "--engine", "see fedaq run --help"),
    "negative rounds": ("run --rounds -1", "--rounds", "greater than or equal to 1 (got -1)"),
    "no clients": ("run --clients 0", "--clients", "(got 0)"),
    "a bad port": ("run --port 65536", "--port", "65535 (got 65536)"),
    "--set without =": ("run --set rounds", "--set rounds: write it as key=value"),
    "--set without a key": ("run --set =3", "--set =3: write it as key=value"),
    "an unknown setting": (
        "run --set fedaq.mim_bits=2", "fedaq.mim_bits is not a setting; did you mean min_bits?"),
    "bits out of range": ("run --set fixed.uplink_bits=17", "17", "1 to 16"),
    "no bits": ("run --set fixed.downlink_bits=0", "1 to 16", "0"),
    "bits in disorder": ("run --set fedaq.min_bits=9 --set fedaq.max_bits=3", "9", "3"),
    "a toml typo": ("run --config typo.toml", "typo.toml: rouns", "did you mean rounds?"),
    "no port": ("client --server 192.0.2.1", "--server: client.server: it is host:port"),
    "no port to examine": ("doctor client --server kitchen", "--server: client.server: it is host"),
    "no side to examine": ("doctor", "Missing command"),
    "an unknown radio": ("client --radio loras", "--radio: client.radio: did you mean lora"),
    "no patience": ("client --give-up-after 0", "--give-up-after: client.give_up_after_s"),
    "an unknown section": ("run --config section.toml", "section.toml: fixd", "mean fixed?"),
    "malformed toml": ("run --config malformed.toml", "malformed.toml: not valid TOML", "line 1"),
    "binary toml": ("run --config binary.toml", "binary.toml: not valid TOML"),
    "bits in toml": ("run --config bits.toml", "bits.toml: ", "17", "1 to 16"),
    "no such config": ("run --config none.toml", "none.toml: cannot be read: No such file"),
    "a folder as config": ("run --config old", "old: cannot be read: Is a directory"),
    "results there already": ("run --out old", "--out old: a run is in there already"),
    "results in a file": ("run --out file", "--out file: cannot be made"),
    "results below a file": ("run --out file/x", "--out file/x: cannot be made: Not a directory"),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_mistake_is_named_at_once(name: str, call: Call) -> None:
    line, *fragments = AT_ONCE[name]
    sentence = said(call(*line.split()), 2)
    assert [text for text in fragments if text not in sentence] == [], sentence


def test_a_mistake_in_the_environment_is_named(written: Commands) -> None:
    ended = written.run("run", env={"FEDAQ_ROUNDS": "-3"})
    assert "environment FEDAQ_ROUNDS: rounds: " in said(ended, 2)


# These need the libraries, which takes a second.
LATER = {
    "no run in a folder": ("inspect .git", ".git"),
    "not a run.json": ("inspect run.json", "run.json: not the run.json of a fedaq run"),
    "not a payload": ("inspect junk.payload", "junk.payload: not a captured payload"),
    "an unknown task": ("server --task digit", "task 'digit' is unknown; built in: digits"),
    "an unknown scheme": ("server --scheme fedac", "scheme 'fedac' is unknown", "fixed"),
    "no data": ("server --data nowhere", "--data nowhere: there is no such file or folder"),
    "no data for a client": ("client --data nowhere", "--data nowhere: there is no such"),
    "no module": ("server --task nobody:task", "task nobody:task: there is no module 'nobody'"),
    "a module without one": ("server --task missing:task", "no module 'no_such_module'"),
    "a module that imports wrong": ("server --task imports:task", "ImportError", "no_such_name"),
    "a module that raises": ("server --task raises:task", "ValueError: two lines"),
    "a module of bad syntax": ("server --task syntax:task", "SyntaxError"),
    "no attribute": ("server --task nothing:tusk", "nothing has no 'tusk'"),
    "no task": ("server --task nothing:task", "is a int, not a fedaq.tasks.Task"),
    "a function of no task": ("server --task nothing:function", "is a NoneType, not a"),
    "a function that raises": ("server --task nothing:broken", "ZeroDivisionError"),
    "a wrong part": ("client --partition 6/5", "--partition 6/5: write it as 2/5"),
    "a part of nothing": ("client --partition two", "--partition two: write it as 2/5"),
    "more parts than data": ("client --partition 1/2000", "1437 examples cannot be shared"),
}


@pytest.mark.parametrize("name", LATER)
def test_a_mistake_is_named_by_the_process_that_meets_it(name: str, call: Call) -> None:
    line, *fragments = LATER[name]
    sentence = said(call(*line.split()), 2)
    assert [text for text in fragments if text not in sentence] == [], sentence


@pytest.mark.parametrize(
    "name", ["an unknown flag", "a toml typo", "a module that raises", "more parts than data"]
)
def test_a_process_of_its_own_says_the_same(name: str, call: Call, written: Commands) -> None:
    line, *_ = (AT_ONCE | LATER)[name]
    assert written.run(*line.split()) == call(*line.split())


def test_the_mistake_of_a_whole_run_is_said_once_and_leaves_nothing(written: Commands) -> None:
    """Server and clients all stumble over it; the user reads it once."""
    before = sorted(path.name for path in written.folder.iterdir())
    ended = written.run("run", "--task", "digit", "--clients", 1, "--out", "new")
    assert "task 'digit' is unknown; built in: digits" in said(ended, 2)
    after = {path.name for path in written.folder.iterdir()} - set(before)
    assert after == {"0.out", "0.err"}


def test_a_payload_that_was_cut_short_is_called_truncated(call: Call, tmp_path: Path) -> None:
    options = "--engine local --clients 1 --rounds 1 --set capture=true"
    assert call("run", *options.split(), "--out", "new").code == 0
    whole = next((tmp_path / "new" / "payloads").glob("*server.payload"))
    assert call("inspect", whole).code == 0
    cut = tmp_path / "cut.payload"
    cut.write_bytes(whole.read_bytes()[:-9])
    assert f"{cut}: " in said(call("inspect", cut), 2)


# ---- On the network ---------------------------------------------------------


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port on which somebody listens, who would even share it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("command", ["server", "run"])
def test_a_busy_port_is_no_port(command: str, busy_port: int, commands: Commands) -> None:
    sentence = said(commands.run(command, "--port", busy_port, "--out", "new"), 2)
    assert f"cannot listen on 127.0.0.1:{busy_port}" in sentence
    assert "--port" in sentence
    assert not (commands.folder / "new").exists()


def test_two_servers_do_not_share_a_port(commands: Commands) -> None:
    """gRPC would let them, and spread the clients over both."""
    port = free_port()
    first = commands.start("server", "--port", port, "--out", "first")
    first.wait_for("listening on")
    sentence = said(commands.run("server", "--port", port, "--out", "second"), 2)
    assert f"cannot listen on 127.0.0.1:{port}" in sentence
    assert first.process.poll() is None


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nowhere.invalid:1"])
def test_where_no_server_is(address: str, commands: Commands) -> None:
    address = address.format(port=free_port())
    ended = commands.run("client", "--server", address, "--give-up-after", 0.2, "--insecure")
    assert f"no server at {address}; is it running" in said(ended, 1)


def test_an_address_of_another_machine(commands: Commands) -> None:
    ended = commands.run("server", "--host", "192.0.2.1", "--port", 0, "--insecure")
    assert "cannot listen on 192.0.2.1:0" in said(ended, 2)


def test_who_may_not_join_a_running_server(written: Commands) -> None:
    port = free_port()
    server = written.start("server", "--port", port, "--clients", 2, "--out", "new")
    server.wait_for("listening on")
    first = written.start("client", "--server", f"127.0.0.1:{port}", "--name", "anna")
    first.wait_for("anna: 1437 examples")
    to_server = ("client", "--server", f"127.0.0.1:{port}")
    other = said(written.run(*to_server, "--task", "other:task", "--name", "bert"), 2)
    assert "tensor 1 is 0.weight 128x64 here and weight 10x64 there" in other
    twin = said(written.run(*to_server, "--name", "anna", "--give-up-after", 0.2), 2)
    assert "a client named anna is connected already" in twin
    spaced = said(written.run(*to_server, "--name", "two words"), 2)
    assert "a client name has 1 to 64 printable characters" in spaced
    assert first.process.poll() is None
    assert server.process.poll() is None


def test_a_server_of_another_protocol_version(written: Commands) -> None:
    """The client runs with another version number; the server tells both."""
    (written.folder / "sitecustomize.py").write_text("import fedaq; fedaq.PROTOCOL_VERSION = 999\n")
    port = free_port()
    server = written.start("server", "--port", port, "--out", "new")
    server.wait_for("listening on")
    ended = written.run(
        "client", "--server", f"127.0.0.1:{port}", env={"PYTHONPATH": str(written.folder)}
    )
    said_why = f"protocol {PROTOCOL_VERSION}, the client 999; install the same fedaq on both"
    assert said_why in said(ended, 2)


def test_a_lost_server_is_not_the_clients_mistake(commands: Commands) -> None:
    port = free_port()
    server = commands.start("server", "--port", port, "--clients", 1, "--rounds", 10_000)
    client = commands.start(
        "client", "--server", f"127.0.0.1:{port}", "--name", "anna", "--give-up-after", 0.2
    )
    client.wait_for("round 1/10000")
    server.process.kill()
    assert "the connection broke" in said(client.wait(), 1)


def test_too_few_clients_are_not_the_servers_mistake(commands: Commands) -> None:
    ended = commands.run("server", "--port", 0, "--set", "network.join_timeout_s=0.2")
    assert "0 of 5 clients connected within 0.2 s; start more of them" in said(ended, 1)


def test_a_task_that_fails_in_training_is_blamed(written: Commands) -> None:
    (written.folder / "narrow.py").write_text(
        "from dataclasses import replace\nfrom torch import nn\n"
        "from fedaq.tasks.digits import task as digits\n"
        "task = replace(digits, name='narrow', model=lambda: nn.Linear(64, 2))\n"
    )
    ended = written.run("run", "--engine", "local", "--task", "narrow:task", "--clients", 1)
    assert "task narrow: training failed: IndexError: Target" in said(ended, 2)


def test_a_client_that_fails_early_ends_the_run_with_its_words(written: Commands) -> None:
    """Otherwise the server would wait minutes for it."""
    (written.folder / "fails.py").write_text(
        "from dataclasses import replace\n"
        "from fedaq.tasks.digits import task as digits\n"
        "def data(path): raise RuntimeError('the disk is gone')\n"
        "task = replace(digits, train_data=data)\n"
    )
    ended = written.run("run", "--task", "fails:task", "--clients", 2, "--out", "new")
    assert "task digits: train_data(None) failed: RuntimeError: the disk is gone" in said(ended, 2)
    assert not (written.folder / "new").exists()
