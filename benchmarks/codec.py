"""Speed of the codec next to a copy of the same memory.

    python benchmarks/codec.py --out codec.json
    python benchmarks/codec.py --level avx2 --widths 1 4 8

Times to quantize and pack, to unpack and dequantize, and to unpack and accumulate 8
million float32 values, for every width, on one thread and on all, in turn with copies of
the same values by `np.copyto`. Speeds are GB/s of float32 values, from the fastest of
several repeats; the ratio is to the fastest copy among the same repeats, both on one
thread. The gains are those of all threads over one: with all values, which memory has to
deliver, and with 256 thousand a thread again and again, which the processor keeps in its
cache as it does a chunk. `np.packbits` and `bitarray` pack
the same codes from a matrix of their bits, whose making is timed with them. `--level` takes the
loops for other instructions than the best that the processor has.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise, product
from math import inf
from pathlib import Path
from time import perf_counter

import numpy as np
from bitarray import bitarray
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fedaq.codec import kernels, quantizer
from fedaq.codec.quantizer import MAX_BITS, MIN_BITS, Floats, Grid, Key, Range, range_grid

VALUES = 8_000_000
# Of one thread, and so often that the threads have long been spread over the processors.
CACHED, AGAIN = 2**18, 64
REPEATS = 9
BASELINE_REPEATS = 1
THREADS = os.cpu_count() or 1
KEY = Key(1, 2)

Loop = Callable[[slice, int], None]


@dataclass
class Arrays:
    """What the timed loops read and write, and where a thread's part of it lies."""

    values: Floats
    bounds: Range
    copied: Floats
    packed: NDArray[np.uint8]
    total: NDArray[np.int64]

    def copy(self, part: slice, bits: int) -> None:
        np.copyto(self.copied[part], self.values[part])

    def quantize(self, part: slice, bits: int) -> None:
        quantizer.quantize(
            self.values[part],
            range_grid(self.bounds, bits),
            KEY,
            first=part.start,
            out=self.packed[packed_part(part, bits)],
        )

    def dequantize(self, part: slice, bits: int) -> None:
        packed = self.packed[packed_part(part, bits)]
        quantizer.dequantize(packed, range_grid(self.bounds, bits), self.copied[part])

    def accumulate(self, part: slice, bits: int) -> None:
        kernels.unpack_accumulate(
            self.packed[packed_part(part, bits)],
            bits,
            -(2**40),
            2**57 // 2**bits,
            16,
            1,
            self.total[part],
        )


@dataclass(frozen=True)
class Speed:
    """Speed of one loop in GB/s of float32, and against a copy and itself on one thread.

    `gain_in_cache` is that of all threads over one where memory has nothing to do.
    """

    one_thread_gb_s: float
    ratio_to_copy: float
    all_threads_gb_s: float
    gain_of_threads: float
    gain_in_cache: float


@dataclass(frozen=True)
class Row:
    """All speeds of one width."""

    bits: int
    copy: Speed
    quantize: Speed
    dequantize: Speed
    accumulate: Speed
    packbits_gb_s: float
    bitarray_gb_s: float


def packed_part(part: slice, bits: int) -> slice:
    return slice(part.start * bits // 8, (part.stop * bits + 7) // 8)


def parts(threads: int) -> list[slice]:
    """Cut the values into one slice a thread, at multiples of the codec's group."""
    groups = VALUES // kernels.GROUP
    ends = [kernels.GROUP * (groups * i // threads) for i in range(threads)] + [VALUES]
    return [slice(*pair) for pair in pairwise(ends)]


def run_in_parts(loop: Loop, bits: int, slices: list[slice], pool: ThreadPoolExecutor) -> None:
    """Run a loop over every slice at once, a single one in this thread."""
    run = map if len(slices) == 1 else pool.map
    for _ in run(loop, slices, [bits] * len(slices)):
        pass


def run_in_cache(loop: Loop, bits: int, threads: int, pool: ThreadPoolExecutor) -> None:
    """Run a loop over as many small slices as there are threads, on one thread or on all."""

    def again(part: slice) -> None:
        for _ in range(AGAIN):
            loop(part, bits)

    slices = [slice(CACHED * i, CACHED * (i + 1)) for i in range(THREADS)]
    run = map if threads == 1 else pool.map
    for _ in run(again, slices):
        pass


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def measure(arrays: Arrays, bits: int, pool: ThreadPoolExecutor) -> dict[str, Speed]:
    """Time every loop in turn, on one thread and on all, and keep its fastest repeat."""
    loops = {
        "copy": arrays.copy,
        "quantize": arrays.quantize,
        "dequantize": arrays.dequantize,
        "accumulate": arrays.accumulate,
    }
    best = dict.fromkeys(product(loops, (1, THREADS)), inf)
    cached = dict(best)
    for _ in range(REPEATS):
        for name, threads in best:
            work = partial(run_in_parts, loops[name], bits, parts(threads), pool)
            best[name, threads] = min(best[name, threads], seconds(work))
            work = partial(run_in_cache, loops[name], bits, threads, pool)
            cached[name, threads] = min(cached[name, threads], seconds(work))
    return {
        name: Speed(
            one_thread_gb_s=rate_gb_s(best[name, 1]),
            ratio_to_copy=best["copy", 1] / best[name, 1],
            all_threads_gb_s=rate_gb_s(best[name, THREADS]),
            gain_of_threads=best[name, 1] / best[name, THREADS],
            gain_in_cache=cached[name, 1] / cached[name, THREADS],
        )
        for name in loops
    }


def rate_gb_s(time_s: float) -> float:
    return VALUES * 4 / time_s / 1e9


def bit_matrix(codes: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Return the bits of every code, lowest first: uint8 of shape (values, bits)."""
    places = np.arange(bits, dtype=np.uint16)
    return (codes[:, None] >> places & np.uint16(1)).astype(np.uint8)


def pack_with_packbits(codes: NDArray[np.uint16], bits: int) -> bytes:
    return np.packbits(bit_matrix(codes, bits), bitorder="little").tobytes()


def pack_with_bitarray(codes: NDArray[np.uint16], bits: int) -> bytes:
    stream = bitarray(endian="little")
    stream.pack(bit_matrix(codes, bits).tobytes())
    return stream.tobytes()


def measure_baseline(
    pack: Callable[[NDArray[np.uint16], int], bytes], arrays: Arrays, bits: int
) -> float:
    """Time another way to pack the same codes, and check that it gives the same bytes."""
    packed = arrays.packed[packed_part(slice(0, VALUES), bits)]
    codes = np.empty(VALUES, np.float32)
    quantizer.dequantize(packed, Grid(bits, 0.0, 1.0), codes)
    whole = codes.astype(np.uint16)
    best = inf
    for _ in range(BASELINE_REPEATS):
        start = perf_counter()
        result = pack(whole, bits)
        best = min(best, perf_counter() - start)
        if result != packed.tobytes():
            raise SystemExit(f"{pack.__name__} packs {bits}-bit codes to other bytes")
    return rate_gb_s(best)


def measure_width(arrays: Arrays, bits: int, pool: ThreadPoolExecutor) -> Row:
    arrays.quantize(slice(0, VALUES), bits)
    return Row(
        bits,
        **measure(arrays, bits, pool),
        packbits_gb_s=measure_baseline(pack_with_packbits, arrays, bits),
        bitarray_gb_s=measure_baseline(pack_with_bitarray, arrays, bits),
    )


def processor() -> str:
    """Return the name of the processor, where the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(rows: list[Row]) -> Table:
    result = Table(
        title=f"GB/s of float32 on 1 and {THREADS} threads; in brackets the ratio to a copy, "
        "and the gains of threads, from memory and in cache"
    )
    for heading in ("bits", "copy", "quantize", "dequantize", "accumulate", "packbits", "bitarray"):
        result.add_column(heading, justify="right")
    for row in rows:
        speeds = (row.copy, row.quantize, row.dequantize, row.accumulate)
        result.add_row(
            str(row.bits),
            *(
                f"{speed.one_thread_gb_s:.1f} ({speed.ratio_to_copy:.2f}) "
                f"{speed.all_threads_gb_s:.1f} (x{speed.gain_of_threads:.1f}, "
                f"x{speed.gain_in_cache:.1f})"
                for speed in speeds
            ),
            f"{row.packbits_gb_s:.2f}",
            f"{row.bitarray_gb_s:.2f}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the codec next to a copy.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--level", choices=kernels.levels(), default=kernels.levels()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=range(MIN_BITS, MAX_BITS + 1))
    given = parser.parse_args()
    out: Path | None = given.out
    loops = kernels.at_level(given.level)
    kernels._loops = lambda: loops  # type: ignore[assignment]

    values = np.random.default_rng(1).standard_normal(VALUES, dtype=np.float32)
    arrays = Arrays(
        values,
        quantizer.value_range(values),
        copied=np.ones(VALUES, np.float32),
        packed=np.ones(2 * VALUES, np.uint8),
        total=np.ones(VALUES, np.int64),
    )
    with ThreadPoolExecutor(THREADS) as pool:
        rows = [measure_width(arrays, bits, pool) for bits in given.widths]

    console = Console()
    console.print(table(rows))
    console.print(f"{processor()}, loops for {given.level}")
    if out is not None:
        report = {
            "processor": processor(),
            "level": given.level,
            "numpy": np.__version__,
            "threads": THREADS,
            "values": VALUES,
            "widths": [asdict(row) for row in rows],
        }
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
