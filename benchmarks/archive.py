"""`fedaq.codec` beside zstd and NVFlare's float16 filter, on one large tensor.

    python benchmarks/archive.py --millions 100

Values are normal with a deviation of 1. Speeds are GB/s of float32, each the fastest of several
repeats, on one thread unless it is said; the error is the root mean square of what comes back.
NVFlare's filter is its own code in an environment that `peers.py` makes, which needs a package
index; where there is none, what it does, a cast to float16 by torch, stands for it, and the table
says so. The filter leaves an array in memory, which is still to be serialized; the others return
bytes.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from peers import nvflare_environment
from round import HERE

from fedaq.codec import decode, encode, estimate

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Floats = NDArray[np.float32]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Row:
    """What one codec took, made and lost."""

    codec: str
    encode_s: float
    decode_s: float
    bytes: int
    error: float

    def line(self, values: int) -> str:
        """Return a line of the table."""
        gigabytes = 4e-9 * values
        return (
            f"| {self.codec} | {gigabytes / self.encode_s:.2f} | {gigabytes / self.decode_s:.2f} "
            f"| {self.bytes / 1e6:.2f} | {4 * values / self.bytes:.2f} | {self.error:.2g} |"
        )


def fastest(act: Callable[[], Made], repeats: int) -> tuple[float, Made]:
    """Return the seconds of the fastest of some calls, and what the last returned."""
    seconds = []
    for _ in range(repeats):
        began = perf_counter()
        made = act()
        seconds.append(perf_counter() - began)
    return min(seconds), made


def error_of(values: Floats, back: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(back - values, dtype=np.float64))))


def row_of_fedaq(values: Floats, repeats: int, threads: int = 1, **asked: Any) -> Row:
    encode_s, archive = fastest(lambda: encode(values, threads=threads, **asked), repeats)
    decode_s, back = fastest(lambda: decode(archive, threads=threads), repeats)
    said = ", ".join(f"{key}={value:.4g}" for key, value in asked.items()) or "without loss"
    of = f", {threads} threads" if threads > 1 else ""
    return Row(f"fedaq, {said}{of}", encode_s, decode_s, len(archive), error_of(values, back))


def row_of_zstd(values: Floats, repeats: int) -> Row:
    encode_s, coded = fastest(lambda: zstd.compress(values.data, level=3), repeats)
    decode_s, back = fastest(lambda: zstd.decompress(coded), repeats)
    error = error_of(values, np.frombuffer(back, np.float32))
    return Row("zstd, level 3", encode_s, decode_s, len(coded), error)


def row_of_nvflare(values: Floats, repeats: int) -> Row:
    try:
        python = nvflare_environment()
    except subprocess.CalledProcessError:
        torch.set_num_threads(1)
        tensor = torch.from_numpy(values)
        encode_s, half = fastest(lambda: tensor.to(torch.float16), repeats)
        decode_s, back = fastest(lambda: half.to(torch.float32), repeats)
        error = error_of(values, back.numpy())
        return Row("a cast to float16, as NVFlare's filter", encode_s, decode_s, half.nbytes, error)
    command = [python, "nvflare_filter.py", str(values.size), str(repeats)]
    printed = subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    return Row(
        "NVFlare 2.9, float16 filter",
        found["quantize_s"], found["restore_s"], found["bytes"], found["error"],
    )  # fmt: skip


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=100.0)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    count, repeats = int(chosen.millions * 1e6), chosen.repeats
    print("| codec | encode GB/s | decode GB/s | MB | times smaller | error |")
    print("|---|---|---|---|---|---|")

    def show(row: Row) -> None:
        print(row.line(count), flush=True)

    # The same values as nvflare_filter.py draws.
    values = np.random.default_rng(1).standard_normal(count, np.float32)
    show(nvflare := row_of_nvflare(values, repeats))
    show(row_of_zstd(values, repeats))
    show(row_of_fedaq(values, repeats))
    # Rounded to the nearest, errors have the variance step**2 / 12.
    show(row_of_fedaq(values, repeats, step=12**0.5 * nvflare.error))
    for asked in ({"step": 0.1}, {"step": 0.1, "seed": 1}, {"step": 2.0, "seed": 1},
                  {"grid_bits": 8}, {"ratio": 32}):  # fmt: skip
        show(row_of_fedaq(values, repeats, **asked))
    show(row_of_fedaq(values, repeats, threads=2, step=0.1))
    seconds, guess = fastest(lambda: estimate(values, step=0.1), repeats)
    exact = len(encode(values, step=0.1))
    print(f"\nestimate(step=0.1): {guess:,} bytes of {exact:,} in {1e3 * seconds:.0f} ms")


if __name__ == "__main__":
    main()
