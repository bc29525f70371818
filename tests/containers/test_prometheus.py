"""The dashboard's questions, asked of a real Prometheus that watches a real run."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from system.commands import Commands, free_port

ROOT = Path(__file__).parents[2]
# Of a run without a budget, and of a calm one.
WITHOUT_ANSWER = ("fedaq_energy_budget_left_joules", "fedaq_join_refusals_total")


def expressions() -> list[str]:
    dashboard = ROOT / "deploy" / "grafana" / "dashboards" / "fedaq.json"
    panels = json.loads(dashboard.read_text())["panels"]
    return sorted({target["expr"] for panel in panels for target in panel["targets"]})


def answer(port: int, expression: str) -> list[dict[str, Any]]:
    question = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{question}") as reply:
        document = json.load(reply)
    assert document["status"] == "success", document
    result: list[dict[str, Any]] = document["data"]["result"]
    return result


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Prometheus")
def test_prometheus_answers_the_dashboard(tmp_path: Path) -> None:
    metrics, own, server = free_port(), free_port(), free_port()
    config = (ROOT / "deploy" / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(
        config.replace("server:9100", f"127.0.0.1:{metrics}").replace("2s", "1s")
    )
    commands = Commands(tmp_path)
    commands.start("server", "--clients", 2, "--rounds", 10_000, "--port", server,
                   "--metrics-port", metrics)  # fmt: skip
    for part in ("1/2", "2/2"):
        commands.start("client", "--server", f"127.0.0.1:{server}", "--partition", part)
    prometheus = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path}/prometheus.yml",
         f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        silent = expressions()
        while silent and time.monotonic() < end:
            time.sleep(1)
            try:
                silent = [text for text in expressions() if not answer(own, text)]
            except (urllib.error.URLError, ConnectionError):
                continue  # it is just starting
            silent = [text for text in silent if not any(name in text for name in WITHOUT_ANSWER)]
        assert silent == []
    finally:
        prometheus.kill()
        prometheus.wait()
        commands.kill()
