"""What the devices measure, and what is learned from it: is a machine off, on, or about to fail?"""

from pathlib import Path

import torch
from torch import Tensor, nn

from fedaq.tasks import Examples, Task

SAMPLES = 64
STATES = ("off", "on", "failing")
MACHINES = 12  # of which the server's test has readings


def vibration(state: int, machine: int, rng: torch.Generator) -> Tensor:
    """Return a window of a machine's vibration, shape (SAMPLES,)."""
    t = torch.arange(SAMPLES) / SAMPLES
    phase = 6.28 * torch.rand((), generator=rng)
    hum = torch.sin(
        6.28 * (7 + machine % 3) * t + phase
    )  # each machine turns at a speed of its own
    rattle = torch.sin(6.28 * 23 * t + 2 * phase) * (state == 2)
    return (state > 0) * hum + 0.6 * rattle + 0.4 * torch.randn(SAMPLES, generator=rng)


def readings(machine: int, count: int) -> Examples:
    """Return windows of one machine, with the states that it was in."""
    rng = torch.Generator().manual_seed(machine)
    states = torch.randint(len(STATES), (count,), generator=rng)
    windows = [vibration(int(state), machine, rng) for state in states]
    return Examples(torch.stack(windows), states)


def _test_data(path: Path | None) -> Examples:
    parts = [readings(1000 + machine, 40) for machine in range(MACHINES)]
    return Examples(
        torch.cat([part.inputs for part in parts]), torch.cat([part.targets for part in parts])
    )


task = Task(
    "machine",
    lambda: nn.Sequential(nn.Linear(SAMPLES, 32), nn.ReLU(), nn.Linear(32, len(STATES))),
    lambda path: readings(0, 200),
    _test_data,
    classes=STATES,
)
