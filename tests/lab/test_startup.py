"""What the first words of a command need not wait for."""

import subprocess
import sys

import pytest

from fedaq.net.ports import bound

# Each of them takes longer to import than everything that help needs.
HEAVY = ("torch", "numpy", "grpc", "sklearn", "matplotlib", "psutil")

SCRIPT = """
import sys
from fedaq.cli import main
sys.argv = ["fedaq", *sys.argv[1:]]
try:
    main()
finally:
    print("IMPORTED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("arguments", [["client", "--help"], ["--help"], ["server", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    shown, _, imported = done.stdout.rpartition("IMPORTED")
    assert "Usage: fedaq" in shown
    assert arguments == ["--help"] or "[digits]" in shown  # what is in brackets is no markup
    assert "typer" in imported.split()
    assert set(imported.split()).isdisjoint(HEAVY)


def test_a_run_of_processes_loads_no_torch_of_its_own() -> None:
    """Each of them does; the first to be told is that its port is busy."""
    with bound("127.0.0.1", 0) as listener:
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "run", "--task", "digits", "--port", port],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "torch" not in done.stdout.rpartition("IMPORTED")[2].split()
