"""The chart for Kubernetes: what can be said of it without helm, and, where helm is, with it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from fedaq.cli.app import application

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "fedaq"
TEMPLATES = {path.name: path.read_text() for path in (CHART / "templates").iterdir()}
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
EVERYTHING: dict[str, Any] = {
    "server": {"settings": {"energy.budget": "8J"}},
    "relays": [
        {
            "name": "north", "clients": 3, "settings": {"energy.radio": "wifi"},
            "certificates": "below", "serverCertificates": "above",
        }
    ],
    "certManager": {"enabled": True, "issuer": {"name": "ca"}, "hosts": ["fl.example.org"]},
    "metrics": {"serviceMonitor": {"enabled": True}},
    "page": {"enabled": True, "tokenSecret": "page", "ingress": {"host": "fl.example.org"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "name"), [("server.yaml", "server"), ("relays.yaml", "relay")]
)
def test_commands_have_the_options_that_the_chart_gives_them(template: str, name: str) -> None:
    commands: Any = get_command(application())
    command = commands.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    given = set(re.findall(r"(?<=[ \"])--[a-z-]+", TEMPLATES[template]))
    assert given and given <= known
    assert re.search(rf"args:\n +- {name}\n", TEMPLATES[template])


def test_every_value_that_templates_use_is_there() -> None:
    used = {
        name for text in TEMPLATES.values() for name in re.findall(r"\.Values((?:\.\w+)+)", text)
    }
    assert used
    for name in used:
        value: Any = VALUES
        for part in name.strip(".").split("."):
            assert part in value, name
            value = value[part]


def test_its_user_is_that_of_the_image() -> None:
    dockerfile = (ROOT / "server" / "Dockerfile").read_text()
    [user] = re.findall(r"useradd --uid (\d+)", dockerfile)
    helpers = TEMPLATES["_helpers.tpl"]
    assert {*re.findall(r"(?:runAsUser|runAsGroup|fsGroup): (\d+)", helpers)} == {user}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_it_renders_to_what_kubernetes_takes(values: dict[str, Any], tmp_path: Path) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not here")
    schemas = pytest.importorskip("kubernetes_validate")
    given = tmp_path / "values.json"
    given.write_text(json.dumps(values))
    done = subprocess.run(
        [helm, "template", "fl", CHART, "--values", given],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    documents = [each for each in yaml.safe_load_all(done.stdout) if each]
    for document in documents:
        if document["apiVersion"].partition("/")[0] not in (
            "cert-manager.io",
            "monitoring.coreos.com",
        ):
            schemas.validate(document, "1.31", strict=True)
    kinds = {document["kind"] for document in documents}
    assert {"StatefulSet", "Service", "NetworkPolicy"} <= kinds
    assert ("Deployment" in kinds) == ("Ingress" in kinds) == bool(values)
