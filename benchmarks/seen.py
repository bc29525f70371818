"""What a server keeps in its memory of each client that it has seen.

    python seen.py
    python seen.py --page          # and what the page needs

Rounds of few clients drawn from many, in one process: it prints the bytes that the server's modules
hold more after the last round than after the first, for each client that took part in between for
the first time, and the lines that hold most of it. Clients themselves are not counted.
"""

import argparse
import gc
import logging
import sqlite3
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

from population import population_task

import fedaq
from fedaq_server.records.record import RoundRecord

SHOWN = 6
SERVER = tracemalloc.Filter(inclusive=True, filename_pattern="*/fedaq_server/*")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--sampled", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    looks: list[tracemalloc.Snapshot] = []
    seen: list[int] = []
    with TemporaryDirectory() as folder:
        place = Path(folder) / "run"

        def on_round(record: RoundRecord) -> None:
            if record.round in (1, asked.rounds):
                gc.collect()
                looks.append(tracemalloc.take_snapshot().filter_traces([SERVER]))
                seen.append(_clients_of(place))

        tracemalloc.start()
        fedaq.run(
            population_task(asked.clients), clients=asked.clients, rounds=asked.rounds,
            clients_per_round=asked.sampled, out=place, progress=False, on_round=on_round,
            network={"dashboard_port": 0} if asked.page else {},
        )  # fmt: skip
    grown = looks[1].compare_to(looks[0], "lineno")
    new = seen[1] - seen[0]
    total = sum(each.size_diff for each in grown)
    print(f"{new} clients more were seen: {total / new:.0f} bytes for each")
    for each in grown[:SHOWN]:
        frame = each.traceback[0]
        print(f"  {each.size_diff / new:6.0f}  {Path(frame.filename).name}:{frame.lineno}")


def _clients_of(run: Path) -> int:
    """Return how many clients have been sent something so far."""
    with sqlite3.connect(f"file:{run / 'ledger.sqlite'}?mode=ro", uri=True) as database:
        return int(database.execute("SELECT COUNT(DISTINCT client) FROM transfers").fetchone()[0])


if __name__ == "__main__":
    main()
