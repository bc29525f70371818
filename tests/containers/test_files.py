"""What the files for containers and for systemd claim; `make containers` runs them for real."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedaq_server.metrics import Metrics

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
RELAYS = ROOT / "examples" / "relays"
RELAYED: dict[str, Any] = yaml.safe_load((RELAYS / "docker-compose.yml").read_text())["services"]
EVERY_SERVICE = [*SERVICES.items(), *RELAYED.items()]
OURS = ("certs", "server", "client")
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "fedaq.json"
UNIT = ROOT / "client" / "systemd" / "fedaq-client.service"
DOCKERFILES = {role: (ROOT / role / "Dockerfile").read_text() for role in ("server", "client")}


# ---- Compose ---------------------------------------------------------------


@pytest.mark.parametrize(("name", "service"), EVERY_SERVICE)
def test_every_service_is_hardened_and_limited(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert "privileged" not in service
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert "restart" in service


def test_server_and_clients_have_what_a_small_board_has() -> None:
    for name in ("server", "client"):
        limits = SERVICES[name]["deploy"]["resources"]["limits"]
        assert (limits["cpus"], limits["memory"]) == ("1", "512m")


def test_clients_wait_for_certificates_and_a_healthy_server() -> None:
    assert SERVICES["client"]["depends_on"] == {
        "certs": {"condition": "service_completed_successfully"},
        "server": {"condition": "service_healthy"},
    }
    assert SERVICES["server"]["healthcheck"]["test"].startswith("fedaq health ")


def test_what_may_write_is_named() -> None:
    written = {
        (name, volume.split(":")[1])
        for name, service in SERVICES.items()
        for volume in service.get("volumes", ())
        if not volume.endswith(":ro")
    }
    assert written == {
        ("certs", "/certs"),
        ("certs", "/certs/server"),
        ("certs", "/certs/clients"),
        ("server", "/runs"),
        ("prometheus", "/prometheus"),
    }


def test_only_the_one_shot_service_has_the_authority() -> None:
    holders = [
        name
        for name, service in SERVICES.items()
        if any(volume.startswith("authority:") for volume in service.get("volumes", ()))
    ]
    assert holders == ["certs"]
    assert SERVICES["certs"]["network_mode"] == "none"


def test_ports_are_published_on_this_machine_alone_unless_asked() -> None:
    ports = [port for _, service in EVERY_SERVICE for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("${BIND:-127.0.0.1}:")] == []


def test_clients_behind_a_relay_reach_nobody_but_it() -> None:
    networks = {name: set(service.get("networks", ())) for name, service in RELAYED.items()}
    assert networks == {
        "certs": set(),
        "server": {"far"},
        **{name: {"far", name} for name in ("north", "south")},
        **{f"{name}-client": {name} for name in ("north", "south")},
    }
    for name in ("north", "south"):
        assert RELAYED[f"{name}-client"]["environment"]["SERVER"] == f"{name}:50051"
        assert RELAYED[f"{name}-client"]["scale"] == 3
        assert RELAYED[name]["depends_on"]["server"] == {"condition": "service_healthy"}
    holders = [n for n, each in RELAYED.items() if any("authority:" in v for v in each["volumes"])]
    assert holders == ["certs"]


def test_every_volume_of_the_relays_is_named_once() -> None:
    document = yaml.safe_load((RELAYS / "docker-compose.yml").read_text())
    mounted = [v.split(":")[0] for service in RELAYED.values() for v in service["volumes"]]
    assert {name for name in mounted if not name.startswith(".")} == set(document["volumes"])
    for place in {name for name in mounted if name.startswith(".")}:
        assert (RELAYS / place).is_dir()


def test_images_from_elsewhere_have_a_version() -> None:
    foreign = [s["image"] for name, s in SERVICES.items() if name not in OURS]
    assert foreign
    assert [image for image in foreign if not re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", image)] == []


# ---- Images ----------------------------------------------------------------


@pytest.mark.parametrize("role", DOCKERFILES)
def test_an_image_has_its_own_extra_a_user_and_no_tools(role: str) -> None:
    build, final = re.split(r"\n(?=FROM )", DOCKERFILES[role])[-2:]
    assert f'["optional-dependencies"]["{role}"]' in build
    assert "pip wheel" in build
    assert build.count("--constraint constraints.txt") == 2
    assert "pip" not in final
    assert "USER 10001:10001" in final
    assert "HEALTHCHECK" in final
    assert 'ENTRYPOINT ["fedaq"]' in final
    bases = re.findall(r"^FROM (\S+)", DOCKERFILES[role], re.MULTILINE)
    assert set(bases) == {"python:3.11-slim"}


@pytest.mark.parametrize("role", DOCKERFILES)
def test_an_image_tells_the_version_of_the_package(role: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'image.version="{version}"' in DOCKERFILES[role]


def test_both_builds_fetch_torch_once() -> None:
    server, client = (text.splitlines()[1:] for text in DOCKERFILES.values())
    torch = next(number for number, line in enumerate(server) if "torch/include" in line)
    assert server[: torch + 1] == client[: torch + 1]


def test_a_build_sees_what_an_installation_needs() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = found["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {*(place.split("/")[0] for place in packages), "native", "README.md",
              "pyproject.toml", "constraints.txt", "LICENSE"}  # fmt: skip
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == needed


# ---- Prometheus and Grafana ------------------------------------------------


def expressions() -> list[str]:
    document = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in document["panels"] for target in panel["targets"]]


ENDS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_sum", "_count", "_bucket")}


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    known = {
        family.name + end
        for family in Metrics(budget_j=1.0).registry.collect()
        for end in ENDS[family.type]
    }
    asked = {name for text in expressions() for name in re.findall(r"\b[a-z]+_\w+", text)}
    assert len(asked) > 10
    assert asked - known == set()


def test_the_dashboard_asks_the_provisioned_source() -> None:
    source = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    uids = {one["uid"] for one in yaml.safe_load(source.read_text())["datasources"]}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == uids


def test_prometheus_asks_the_port_that_the_server_has() -> None:
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    (target,) = jobs[0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert f"--metrics-port {port} " in SERVICES[host]["command"]


# ---- systemd ---------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # It wants the command to be there.
    text = UNIT.read_text().replace("/opt/fedaq/bin/fedaq", sys.executable)
    (tmp_path / UNIT.name).write_text(text)
    words = ["systemd-analyze", "verify", str(tmp_path / UNIT.name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_restarts_limits_and_watches() -> None:
    lines = UNIT.read_text().splitlines()
    for line in ("Type=notify", "Restart=always", "MemoryMax=512M", "DynamicUser=yes"):
        assert line in lines
    assert any(line.startswith("WatchdogSec=") for line in lines)
