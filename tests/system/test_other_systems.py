"""Whole federations on a Python without what only Linux has.

``elsewhere/sitecustomize.py`` takes it away, in the process that is started and in those that it
starts. It shows that nothing of ours relies on it; it is no macOS and no Windows.
"""

import ast
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from system.commands import Commands, free_port

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "common/fedaq",
    "server/fedaq_server",
    "client/fedaq_client",
    "relay/fedaq_relay",
    "lab/fedaq_lab",
)
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
ELSEWHERE = {"PYTHONPATH": str(Path(__file__).with_name("elsewhere"))}
RUN = ("run", "--clients", 2, "--rounds", 3, "--set", "capture=true")
# Python's documentation of each says "Availability: Unix" or less.
NOT_EVERYWHERE = {
    "crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "spwd",
    "syslog", "termios", "tty",
}  # fmt: skip

LOOK = """
import asyncio, importlib, os, select, socket
from pathlib import Path
found = []
for name in ("fcntl", "resource", "termios", "pwd"):
    try:
        found.append(importlib.import_module(name))
    except ImportError:
        pass
for look in (open, Path.read_text, os.listdir, os.scandir, os.stat):
    try:
        found.append(look(Path("/proc/self")))
    except FileNotFoundError:
        pass
found += [name for name in ("TCP_INFO", "AF_UNIX") if hasattr(socket, name)]
found += [name for name in ("sysconf", "fork", "pread", "getuid") if hasattr(os, name)]
async def main():
    asyncio.get_running_loop().add_signal_handler(2, print)
try:
    asyncio.run(main())
    found.append("a signal handler")
except NotImplementedError:
    pass
print(found)
"""


def said(program: str) -> str:
    """Return the output of a program that runs elsewhere, its errors as well."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **ELSEWHERE},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    ).stdout  # fmt: skip


def test_what_is_elsewhere_lacks_what_it_should() -> None:
    """Or the other tests here would show nothing."""
    assert said(LOOK) == "[]\n"


# An extra, which the other tests do without.
NEED_FLOWER = {"fedaq.flower.mod", "fedaq_server.flower.strategy"}


def test_every_module_can_be_imported() -> None:
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts[1:])
        for file in FILES
        if file.name != "__main__.py"
    ]
    if find_spec("flwr") is None:
        names = [name for name in names if name not in NEED_FLOWER]
    if find_spec("ray") is None:
        names.remove("fedaq_lab.ray_engine")
    assert "fedaq_server.transport.tcp_counter" in names
    assert said("import " + ", ".join(names) + "\nprint('all')") == "all\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_nothing_that_some_systems_lack(file: Path) -> None:
    assert imported_at_once(ast.parse(file.read_text())) & NOT_EVERYWHERE == set()


def imported_at_once(tree: ast.AST) -> set[str]:
    """Return the modules that are imported together with a module, not in its functions."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found |= imported_at_once(node)
    return found


def test_such_an_import_would_be_found() -> None:
    hidden = "try:\n    from resource import getrlimit\nexcept ImportError:\n    pass"
    assert imported_at_once(ast.parse(hidden)) == {"resource"}
    assert imported_at_once(ast.parse("def f():\n    import resource")) == set()


@pytest.fixture(scope="module")
def runs(lasting_commands: Commands) -> dict[str, Path]:
    """The same run here, and elsewhere in both of its ways."""
    started = {
        "here": lasting_commands.start(*RUN, "--out", "here"),
        "processes": lasting_commands.start(*RUN, "--out", "processes", env=ELSEWHERE),
        "local": lasting_commands.start(*RUN, "--out", "local", "--engine", "local", env=ELSEWHERE),
    }
    for name, running in started.items():
        ended = running.wait()
        assert (ended.code, ended.err) == (0, ""), name
    return {name: lasting_commands.folder / name for name in started}


def rounds(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "run.json").read_text())["rounds"]
    return found


@pytest.mark.parametrize("way", ["processes", "local"])
def test_a_run_comes_to_the_same_model(way: str, runs: dict[str, Path]) -> None:
    for file in ("model.safetensors", *(f"payloads/{p.name}" for p in payloads(runs["here"]))):
        assert (runs[way] / file).read_bytes() == (runs["here"] / file).read_bytes(), file


def payloads(folder: Path) -> list[Path]:
    found = list((folder / "payloads").iterdir())
    assert len(found) > 3
    return found


def test_bytes_on_the_wire_are_null_where_nobody_counts_them(runs: dict[str, Path]) -> None:
    elsewhere = rounds(runs["processes"])
    assert len(elsewhere) == 3
    for way in ("uplink", "downlink"):
        assert all(entry[f"{way}_wire_bytes"] > 0 for entry in rounds(runs["here"]))
        assert [entry[f"{way}_wire_bytes"] for entry in elsewhere] == [None] * 3
        name = f"{way}_payload_bytes"
        assert [e[name] for e in elsewhere] == [e[name] for e in rounds(runs["here"])]


def test_a_report_leaves_out_what_nobody_counted(
    runs: dict[str, Path], lasting_commands: Commands
) -> None:
    for name, shown in (("here", True), ("processes", False)):
        out = lasting_commands.folder / f"report-{name}"
        done = lasting_commands.run("report", runs[name], "--out", out, env=ELSEWHERE)
        assert (done.code, done.err) == (0, "")
        page = (out / "report.html").read_text()
        assert ('<th scope="col">on the wire</th>' in page) == shown


def test_the_doctor_sees_memory_and_cores_and_asks_for_no_files(commands: Commands) -> None:
    found = commands.run("doctor", "server", "--port", free_port(), env=ELSEWHERE)
    assert (found.code, found.err) == (0, "")
    assert "✓ memory" in found.out
    assert " to use, load " in found.out
    assert "open files" not in found.out


def test_a_stop_signal_ends_both_sides(commands: Commands) -> None:
    port = free_port()
    server = commands.start(
        "server", "--port", port, "--clients", 1, "--rounds", 100_000, "--out", "new", env=ELSEWHERE
    )
    client = commands.start("client", "--server", f"127.0.0.1:{port}", env=ELSEWHERE)
    server.wait_for("round 2/")
    second = commands.run("server", "--port", free_port(), "--resume", "new", env=ELSEWHERE)
    assert (second.code, second.err) == (2, "fedaq: new: another server is at work on this run\n")
    server.signal(signal.SIGINT)
    ended = server.wait()
    assert (ended.code, ended.err) == (130, "fedaq: stopped\n")
    client.wait_for("the server stopped; trying again in")
    client.signal(signal.SIGTERM)
    assert client.wait().code == 143


def test_output_that_cannot_hold_check_marks(commands: Commands) -> None:
    """As a file on Windows, by default."""
    found = commands.run(
        "doctor", "server", "--port", free_port(), env={"PYTHONIOENCODING": "cp1252"}
    )
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("\\u2713 system")
