"""A client needs nothing of the server's."""

import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from system.commands import Commands, free_port

ROOT = Path(__file__).parents[2]
TYPED = ("fedaq", "fedaq_client", "fedaq_lab", "fedaq_relay", "fedaq_server")
WITHOUT = """
import runpy, sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is not for clients", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["fedaq", *{arguments!r}]
runpy.run_module("fedaq", run_name="__main__")
"""


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in requirements}


def only_the_servers() -> set[str]:
    """Return the modules of what the server's extra asks for, and no client."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    ours = distributions(project["dependencies"]) | distributions(extras["client"])
    theirs = distributions(extras["server"]) - ours
    assert "matplotlib" in theirs
    modules = {
        module
        for module, names in packages_distributions().items()
        if theirs & {name.lower().replace("_", "-") for name in names}
    }
    assert {"matplotlib", "cryptography", "prometheus_client"} <= modules
    return modules


@pytest.mark.parametrize("side", ["client", "doctor"])
def test_a_client_imports_nothing_of_the_server(side: str, commands: Commands) -> None:
    port = free_port()
    server = commands.start("server", "--clients", 1, "--rounds", 1, "--port", port)
    server.wait_for("listening on")
    arguments = ["client"] if side == "client" else ["doctor", "client"]
    program = WITHOUT.format(
        absent=only_the_servers(), arguments=[*arguments, "--server", f"127.0.0.1:{port}"]
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    if side == "client":
        assert "the run is over after 1 rounds" in done.stdout
        assert server.wait().code == 0


@pytest.mark.slow
def test_the_wheel_alone_joins_a_server(commands: Commands) -> None:
    """In an environment that is empty but for it; takes a minute, and the package index."""
    # setuptools builds in the tree, and would find there what an older one had.
    sources = commands.folder / "sources"
    shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir",
         commands.folder, sources],
        check=True,
    )  # fmt: skip
    [wheel] = commands.folder.glob("fedaq-*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    typed = {name for name in files if name.endswith("/py.typed")}
    assert typed == {f"{name}/py.typed" for name in TYPED}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in files)
    # Of what others wrote and the page needs.
    assert "fedaq_server/dashboard/static/vendor/LICENSES.txt" in files
    venv.create(commands.folder / "empty", with_pip=True)
    python = commands.folder / "empty" / "bin" / "python"
    install: list[str | Path]
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, f"fedaq[client] @ file://{wheel}"], check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    installed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    assert not distributions(installed.stdout.splitlines()) & {"matplotlib", "cryptography"}

    port = free_port()
    server = commands.start("server", "--clients", 1, "--rounds", 2, "--port", port)
    server.wait_for("listening on")
    done = subprocess.run(
        [python.with_name("fedaq"), "client", "--server", f"127.0.0.1:{port}"],
        check=False, cwd=commands.folder, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert server.wait().code == 0
