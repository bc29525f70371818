"""The reference names everything that is promised to stay, and says what each part is."""

import dataclasses
import importlib
import re
import tomllib

import generated
import pytest

import fedaq_server.schemes
from documents.pages import ROOT
from fedaq.cli.app import COMMANDS
from fedaq.cli.settings_table import all_settings
from fedaq.energy.radios import PRESETS
from fedaq_server.metrics import Metrics

API = (ROOT / "docs" / "reference" / "api.md").read_text()
NAMES = re.findall(r"^::: ([\w.]+)", API, re.MULTILINE)


def test_the_reference_has_what_is_stable() -> None:
    page = (ROOT / "docs" / "reference" / "stability.md").read_text()
    promised = re.findall(r"`(\w+)`", page.partition("**From Python**")[2].partition("\n\n")[0])
    assert len(promised) > 10
    short = {name.rpartition(".")[2] for name in NAMES}
    assert set(promised) - short == set()
    assert set(fedaq_server.schemes.__all__) - short == set()


@pytest.mark.parametrize("name", NAMES)
def test_what_the_reference_names_is_documented(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert found.__doc__
    if not dataclasses.is_dataclass(found):
        return
    described = {
        part.strip()
        for line in re.findall(r"^    ([\w, ]+) : ", found.__doc__, re.MULTILINE)
        for part in line.split(",")
    }
    public = {field.name for field in dataclasses.fields(found) if field.name[0] != "_"}
    own = public & found.__annotations__.keys()
    assert own - described == set()


def test_pages_that_are_made_have_everything() -> None:
    settings, commands = generated.settings_page(), generated.commands_page()
    for setting in all_settings():
        assert f"\n| `{setting.name}` | " in settings
    for name in COMMANDS:
        assert f"\n## `fedaq {name}`\n" in commands
    metrics = generated.metrics_page()
    for family in Metrics(budget_j=1.0).registry.collect():
        assert f"| `{family.name}" in metrics
        assert family.documentation in metrics
    assert "\n| `fedaq_rounds_total` | counter | Rounds that are over. |\n" in metrics
    radios = generated.radios_page()
    for name, radio in PRESETS.items():
        assert f"\n| `{name}` | sent up | " in radios
        assert f"| {radio.downlink.source} |" in radios
    assert "| `lte-m` | sent up | 0.37 | 180 | 2.056 |" in radios
    assert "| a whole number ≥ 1 ≤ 100,000 |" in settings
    assert "| `iid`, `shards`, `dirichlet` |" in settings


def test_every_setting_has_a_meaning_or_a_name_that_says_it() -> None:
    bare = [setting.name for setting in all_settings() if not setting.meaning]
    assert bare == []


def test_the_page_on_energy_has_the_figures_of_the_presets() -> None:
    page = (ROOT / "docs" / "reference" / "energy.md").read_text()
    for name, radio in PRESETS.items():
        ways = (radio.uplink, radio.receive, radio.downlink)
        figures = " | ".join(f"{way.j_per_bit * 1e6:.3g}" for way in ways)
        assert f"\n| `{name}` | {figures} |\n" in page


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_maps_have_every_room(page: str) -> None:
    text = (ROOT / page).read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for contract in project["tool"]["importlinter"]["contracts"]:
        [container] = contract.get("containers", [""])
        if container in {"fedaq", "fedaq_server", "fedaq_client"}:
            layers = " ".join(contract["layers"]).replace("|", " ").split()
            rooms = [name for name in layers if not name.startswith("__")]
            named = [re.search(rf"\b{room}(/|\.py)[ `\n]", text) for room in rooms]
            assert [room for room, found in zip(rooms, named, strict=True) if not found] == []
