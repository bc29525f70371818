"""What the project's own files say of it: one version, typed packages, commands that exist."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import fedaq

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
MOST_LINES = 450
PACKAGES = {
    ROOT / place for place in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
}


@pytest.mark.parametrize("package", sorted(PACKAGES), ids=lambda package: package.name)
def test_a_package_says_that_it_is_typed(package: Path) -> None:
    assert (package / "py.typed").read_bytes() == b""


def test_there_is_one_version() -> None:
    version = PYPROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (fedaq.__version__, citation["version"]) == (version, version)
    heading = f"\n## {version} - {citation['date-released']}\n"
    assert heading in (ROOT / "CHANGELOG.md").read_text()


def test_there_is_one_licence() -> None:
    licence = PYPROJECT["project"]["license"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == licence
    assert licence == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n" in text
    assert "Version 2.0, January 2004" in text


def test_what_contributors_are_told_to_run_exists() -> None:
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    page = (ROOT / "CONTRIBUTING.md").read_text()
    asked = {name for names in re.findall(r"`?make ([\w -]+?)(?:`|\s{2})", page)
             for name in names.split()}  # fmt: skip
    assert {"demo", "test", "types", "chaos"} <= asked
    assert asked - rules == set()
    for path in re.findall(r"pytest ([\w/.]+(?: [\w/.]+)*)`", page):
        assert all((ROOT / part).exists() for part in path.split())


def test_hooks_use_what_is_installed_for_development() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    installed = {re.split(r"[^\w-]", text)[0]
                 for text in PYPROJECT["project"]["optional-dependencies"]["dev"]}  # fmt: skip
    for repository in config["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            program = hook["entry"].split()[0]
            assert program.startswith(".venv/bin/")
            assert program.removeprefix(".venv/bin/") in installed


def test_no_source_file_is_long() -> None:
    """What is generated or another's is not ours to split, nor a file that others take along."""
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.c", "*.h",
         "*.js"], cwd=ROOT, text=True,
    ).splitlines()  # fmt: skip
    sources = [name for name in listed if "/v1/" not in name and (ROOT / name).exists()]
    sources.remove("docs/reference/decode.c")
    lengths = {name: len((ROOT / name).read_bytes().splitlines()) for name in sources}
    assert {"common/fedaq/codec/coding.py", "native/loops.h"} <= set(sources)
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
