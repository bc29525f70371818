"""Ten devices with batteries from 0.05 to 1 J, against the same joules shared freely.

    python benchmarks/batteries.py --task fashion-mnist --data DATA --rounds 40 --seeds 1,2

Prints for each seed what the run with batteries came to, and one with a budget of as many joules
as that one spent; and who left, when, and how much of every battery was spent. Exit code 1 if one
is overspent.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fedaq

BATTERIES_J = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)


def run(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the ``run.json`` of a run."""
    with TemporaryDirectory() as folder:
        fedaq.run(task, out=Path(folder) / "run", progress=False, **options)
        document: dict[str, Any] = json.loads((Path(folder) / "run" / "run.json").read_text())
    return document


def main() -> int:
    """Run every seed twice and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--scale", type=float, default=1.0, help="of all batteries")
    parser.add_argument("--radio", default="constant")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    energy: dict[str, Any] = {"radio": asked.radio}
    if asked.radio != "constant":
        # Batteries alone count: the serving side is on the mains.
        energy["downlink"] = {"j_per_bit": 0.0}
    common: dict[str, Any] = {
        "data": asked.data, "rounds": asked.rounds,
        "clients": len(BATTERIES_J), "energy": energy,
    }  # fmt: skip
    amounts = {f"client-{n}": asked.scale * j for n, j in enumerate(BATTERIES_J, 1)}
    batteries = ",".join(f"{name}:{joules:g}J" for name, joules in amounts.items())
    ends, overspent = [], False
    for seed in map(int, asked.seeds.split(",")):
        own = run(asked.task, {**common, "seed": seed, "device_budget": batteries})
        spent_j = own["summary"]["energy_j"]
        free = run(asked.task, {**common, "seed": seed, "budget": f"{spent_j:.9g}J"})
        ends.append((own["summary"]["final_metric"], free["summary"]["final_metric"]))
        print(
            f"seed {seed}: batteries {ends[-1][0]:.4f} with {spent_j:.4g} J; free "
            f"{ends[-1][1]:.4f} with {free['summary']['energy_j']:.4g} J"
        )
        used = {n: each["J"] for n, each in own["budgets"]["devices"].items()}
        overspent |= any(each["spent"] > each["budget"] for each in used.values())
        shares = (f"{used[name]['spent'] / used[name]['budget']:.1%}" for name in amounts)
        print("  spent of each battery:", " ".join(shares))
        for each in own["budgets"]["empty"]:
            print(f"  round {each['round']}: {each['reason']}")
    means = [sum(each) / len(ends) for each in zip(*ends, strict=True)]
    print(f"mean: batteries {means[0]:.4f}, free {means[1]:.4f}; overspent: {overspent}")
    return int(overspent)


if __name__ == "__main__":
    sys.exit(main())
