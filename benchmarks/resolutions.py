"""How the default resolutions of scheme ``fedaq`` were chosen: a sweep on the digits.

For every pair of resolutions and every seed a whole run in one process; the table shows
what it ended at against ``fp32``, and what it cost against ``fixed`` at 8/8 bits. With
`--packed`, codes are packed and whole models go down.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from statistics import mean

from rich.table import Table

from fedaq.process.terminal import console
from fedaq.settings import load_settings
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run

UPLINK = (0.05, 0.1, 0.15, 0.2)
DOWNLINK = (0.015, 0.03, 0.06)
PACKED_UPLINK = (0.02, 0.03, 0.04, 0.06)
PACKED_DOWNLINK = (0.04, 0.08, 0.12, 0.16)
PACKED = ("coding.entropy=false", "coding.downlink=model")


def run(seed: int, *assignments: str) -> list[RoundRecord]:
    settings = load_settings(flags={"seed": seed}, assignments=assignments)
    with tempfile.TemporaryDirectory() as folder:
        federation = Run(settings, Ledger(Path(folder)), lambda record: None)
        asyncio.run(federate(federation))
        return federation.records


def energy_j(rounds: list[RoundRecord]) -> float:
    return sum(record.energy_j for record in rounds)


def third(rounds: list[RoundRecord], which: int, name: str) -> float:
    size = len(rounds) // 3
    part = rounds[which * size : (which + 1) * size]
    return float(mean(getattr(record, name) for record in part))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--packed", action="store_true", help="no entropy coder, no differences")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    coding = PACKED if options.packed else ()
    fp32 = [run(seed, "scheme=fp32")[-1].test_accuracy for seed in seeds]
    fixed_j = mean(energy_j(run(seed, "scheme=fixed")) for seed in seeds)
    table = Table(title=f"fp32 ends at {mean(fp32):.4f}; fixed 8/8 costs {fixed_j:.3f} J")
    for column in ("up", "down", "final", "worst gap", "saved", "bits up", "bits down"):
        table.add_column(column, justify="right")
    for up in PACKED_UPLINK if options.packed else UPLINK:
        for down in PACKED_DOWNLINK if options.packed else DOWNLINK:
            steps = (f"fedaq.uplink_resolution={up}", f"fedaq.downlink_resolution={down}")
            runs = [run(seed, *coding, *steps) for seed in seeds]
            final = [rounds[-1].test_accuracy for rounds in runs]
            table.add_row(
                f"{up:g}",
                f"{down:g}",
                f"{mean(final):.4f}",
                f"{max(a - b for a, b in zip(fp32, final, strict=True)):+.4f}",
                f"{1 - mean(map(energy_j, runs)) / fixed_j:.1%}",
                *(
                    " > ".join(f"{mean(third(r, k, name) for r in runs):.2f}" for k in range(3))
                    for name in ("uplink_bits", "downlink_bits")
                ),
            )
    console.print(table)


if __name__ == "__main__":
    main()
