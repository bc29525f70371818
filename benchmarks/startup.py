"""Seconds until `fedaq client --help` is done: the fastest and the median of several starts.

python benchmarks/startup.py
"""

import json
import subprocess
import sys
from statistics import median
from time import perf_counter

STARTS = 10


def main() -> None:
    seconds = []
    for _ in range(STARTS):
        began = perf_counter()
        subprocess.run(
            [sys.executable, "-m", "fedaq", "client", "--help"], check=True, capture_output=True
        )
        seconds.append(perf_counter() - began)
    print(json.dumps({"fastest_s": round(min(seconds), 3), "median_s": round(median(seconds), 3)}))


if __name__ == "__main__":
    main()
