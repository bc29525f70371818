"""Make data folders: ``python -m sensors.make data --clients 5``.

Each client gets ``data/client-N/recording.csv`` of its own wearer, with activities in its own
proportions; the server gets ``data/server/recording.csv`` of wearers whom no client knows.
"""

import argparse
from pathlib import Path

import numpy as np

from sensors.signals import ACTIVITIES, RATE_HZ, Wearer, record, some_wearer

TEST_WEARERS = 12
# A bout of one activity; whoever writes real recordings need not keep to it.
BOUT_S = 20.0
HEADER = "activity,x,y,z"


def write_recording(
    path: Path, bouts: list[tuple[Wearer, str]], random: np.random.Generator
) -> None:
    """Write a recording: one line per sample, an activity and acceleration in m/s^2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        print(HEADER, file=file)
        for wearer, activity in bouts:
            for x, y, z in record(wearer, activity, BOUT_S, random).T:
                print(f"{activity},{x:.3f},{y:.3f},{z:.3f}", file=file)


def make_client(folder: Path, number: int, minutes: float, random: np.random.Generator) -> Wearer:
    """Record one wearer, who does some things often and others hardly ever."""
    wearer = some_wearer(number, random)
    mix = random.dirichlet(np.full(len(ACTIVITIES), 2.0))
    count = max(1, round(60 * minutes / BOUT_S))
    bouts = [(wearer, str(random.choice(ACTIVITIES, p=mix))) for _ in range(count)]
    write_recording(folder / "recording.csv", bouts, random)
    return wearer


def make(folder: Path, clients: int, minutes: float, seed: int) -> None:
    """Make the folders of all clients and that of the server."""
    for number in range(1, clients + 1):
        random = np.random.default_rng([seed, number])
        wearer = make_client(folder / f"client-{number}", number, minutes, random)
        print(f"{folder}/client-{number}: worn at the {wearer.placement}, gain {wearer.gain:.2f}")
    random = np.random.default_rng([seed, 0])
    strangers = [some_wearer(number, random) for number in range(TEST_WEARERS)]
    bouts = [(wearer, activity) for wearer in strangers for activity in ACTIVITIES]
    write_recording(folder / "server" / "recording.csv", bouts, random)
    print(f"{folder}/server: {TEST_WEARERS} other wearers, {BOUT_S:g} s of every activity each")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=f"Make recordings at {RATE_HZ} Hz.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each client")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.clients, arguments.minutes, arguments.seed)


if __name__ == "__main__":
    main()
