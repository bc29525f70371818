"""The rooms of the packages: who imports whom, what each says of itself, what a reader loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "common/fedaq",
    "server/fedaq_server",
    "client/fedaq_client",
    "relay/fedaq_relay",
    "lab/fedaq_lab",
)
ROOMS = [
    init.relative_to(ROOT)
    for package in PACKAGES
    for init in sorted((ROOT / package).glob("*/__init__.py"))
    if init.parent.name != "v1"  # what protoc made
]
# What reads or writes run.json, and what is made of one.
OF_RUN_JSON = ("picture", "record", "saved", "scheme_state", "tracking")


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [tool, "--no-logo", "--no-cache", config],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_imports_run_one_way() -> None:
    done = lint(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_arrow_back_would_be_found(tmp_path: Path) -> None:
    config = (ROOT / "pyproject.toml").read_text()
    turned = tmp_path / "pyproject.toml"
    turned.write_text(
        config.replace('    "rounds",\n    "transport",', '    "transport",\n    "rounds",')
    )
    done = lint(turned)
    assert done.returncode == 1
    assert "fedaq_server.rounds.loop -> fedaq_server.transport.client" in done.stdout


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_a_room_says_what_belongs_there_and_holds_no_code(room: Path) -> None:
    said, *rest = ast.parse((ROOT / room).read_text()).body
    assert isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)
    assert len(str(said.value.value).split()) > 10
    shown_to_editors = [line.body for line in rest if isinstance(line, ast.If)]
    others = [line for line in rest if not isinstance(line, ast.If)]
    assert all(isinstance(line, ast.ImportFrom) for body in shown_to_editors for line in body)
    assert all(isinstance(line, ast.ImportFrom | ast.Assign) for line in others)


@pytest.mark.parametrize("module", OF_RUN_JSON)
def test_who_reads_a_run_loads_neither_torch_nor_the_protocol(module: str) -> None:
    program = (
        f"import sys, fedaq_server.records.{module}\n"
        "heavy = {'torch', 'google.protobuf', 'grpc', 'fedaq.v1', 'fedaq.codec'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
