"""What examples/relays composes, with processes in the place of containers."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.test_files import RELAYED, RELAYS, ROOT
from system.commands import Commands, Running, free_port

ROUNDS = 3


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    started = Commands(tmp_path)
    yield started
    started.kill()


def certificates(folder: Path) -> None:
    """Make the folders of all, as the service `certs` does."""
    for volume in RELAYED["certs"]["volumes"]:
        place = volume.split(":")[1]
        if place.startswith("/certs/"):
            (folder / place.removeprefix("/certs/")).mkdir(parents=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for _ in range(2):  # a second time it changes nothing
        made = sorted(folder.rglob("*.key"))
        subprocess.run(
            ["sh", RELAYS / "certs.sh", folder],
            check=True, capture_output=True, env={**os.environ, "PATH": path},
        )  # fmt: skip
    assert made == sorted(folder.rglob("*.key"))


def at_home(command: str, folder: Path, name: str, ports: dict[str, int]) -> list[str]:
    """Return the words of a service's command as they are on this machine."""
    own = {"/runs": folder / f"{name}-run", "/certs/own": folder / "of" / name}
    command = re.sub(r"\$\{ROUNDS:-\d+\}", str(ROUNDS), command)
    command = re.sub(r"--(dashboard-port \S+|set network\.dashboard_\S+|host \S+)", "", command)
    for place, here in own.items():
        command = command.replace(place, str(here))
    command = re.sub(
        r"\b(server|north|south):50051", lambda at: f"localhost:{ports[at[1]]}", command
    )
    return [*shlex.split(command), "--port", str(ports[name])]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sh") is None, reason="the certificates are made by a script")
def test_six_clients_behind_two_relays_learn(commands: Commands, tmp_path: Path) -> None:
    certificates(tmp_path)
    ports = {name: free_port() for name in ("server", "north", "south")}
    started: list[Running] = []
    for name in ports:
        words = at_home(RELAYED[name]["command"], tmp_path, name, ports)
        started.append(commands.start(*words))
    script = (ROOT / "deploy" / "client.sh").read_text()
    [words] = re.findall(r"exec fedaq (client(?:.*\\\n)*.*)", script)
    for name in ("north", "south"):
        for folder in sorted((tmp_path / "of" / f"{name}-clients").iterdir()):
            said = {
                "$server": f"localhost:{ports[name]}",
                "$folder": str(folder),
                "$number": folder.name.removeprefix("client-"),
                "$PARTS": str(RELAYED[f"{name}-client"]["environment"]["PARTS"]),
            }
            command = words.replace("\\\n", " ")
            for variable, value in said.items():
                command = command.replace(variable, value)
            started.append(commands.start(*shlex.split(command)))
    for each in started:
        ended = each.wait()
        assert ended.code == 0, ended.err
    document = json.loads((tmp_path / "server-run" / "root" / "run.json").read_text())
    assert len(document["rounds"]) == ROUNDS
    for each_round in document["rounds"]:
        behind = {name: relay["clients"] for name, relay in each_round["relays"].items()}
        assert behind == {"north": 3, "south": 3}
    assert document["summary"]["final_accuracy"] > 0.8
