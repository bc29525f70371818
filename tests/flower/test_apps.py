"""The example's two apps in Flower itself: in its simulation, and deployed, as processes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs Flower: make test-flower")

from flower.deployed import deployed

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower"


@pytest.mark.slow
def test_the_simulation_sends_a_fraction(tmp_path: Path) -> None:
    """Both apps, digits, ten nodes, as the benchmark runs them."""
    pytest.importorskip("ray", reason="Flower's simulation needs Ray: make test-flower")
    command = [sys.executable, str(ROOT / "benchmarks" / "flower_app.py")]
    ended = subprocess.run(
        [*command, "--rounds", "12", "--seeds", "1"], capture_output=True, text=True, check=False
    )
    found = re.search(r"mean: ([\d.]+) times fewer bytes, ([-+][\d.]+) points", ended.stdout)
    assert found, ended.stdout + ended.stderr
    assert float(found[1]) > 40
    assert float(found[2]) > -3


@pytest.mark.slow
def test_a_deployed_superlink_counts_a_fraction(tmp_path: Path) -> None:
    """As `flwr list` has it: all that goes over the wire for a run, the app itself included."""
    with deployed(tmp_path, nodes=2) as deployment:
        options = {"num_server_rounds": 2, "fraction_evaluate": 1.0}
        runs = {name: deployment.run(EXAMPLE / name, **options) for name in ("before", "after")}
        logs = deployment.logs()
    for run in runs.values():
        assert run["status"] == "finished:completed", logs
    before, after = (runs[name]["network-traffic"] for name in ("before", "after"))
    print(before, after)
    assert 40 * after["inbound-bytes"] < before["inbound-bytes"]
    # Two nodes, two rounds: the first model is most of it.
    assert 10 * after["outbound-bytes"] < before["outbound-bytes"]
    # Nodes that fail send next to nothing.
    assert after["inbound-bytes"] > 6_000


def test_the_readme_shows_all_that_differs() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    for name in ("client_app.py", "server_app.py"):
        before, after = (
            (EXAMPLE / folder / "quickstart" / name).read_text().splitlines()
            for folder in ("before", "after")
        )
        gone = [f"-{line}" for line in before if line not in after]
        come = [f"+{line}" for line in after if line not in before]
        assert len(gone) == 1
        assert len(come) == 2
        assert all(line in readme.splitlines() for line in [*gone, *come])
    for name in ("__init__.py", "task.py"):
        assert (EXAMPLE / "before" / "quickstart" / name).read_text() == (
            EXAMPLE / "after" / "quickstart" / name
        ).read_text()
