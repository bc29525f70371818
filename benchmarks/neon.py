"""Instructions that the loops take a value on aarch64, counted under emulation.

    python benchmarks/neon.py

An estimate of what NEON, with its vectors of 128 bits, does: no seconds, since the processor is
emulated. Each loop runs over N and over 2 N values in a small program that `ziglang` compiles, and
QEMU writes down every instruction; the difference is what N values took. Needs ziglang (pip install
'.[wheels]') and qemu-aarch64-static.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

NATIVE = Path(__file__).parents[1] / "native"
VALUES = 2**13
WIDTHS = (1, 4, 8, 12)
LOOPS = ("quantize", "dequantize", "accumulate", "code_sums")
PROGRAM = """
#define LEVEL base
#include "loops.h"
#include <stdlib.h>
#include <string.h>
static float values[1 << 20];
static uint8_t packed[1 << 21];
static int64_t total[1 << 20], sums[2];
int main(int count, char **arguments)
{
    const char *loop = arguments[1];
    const int64_t bits = atoi(arguments[2]), size = atoi(arguments[3]);
    for (int64_t i = 0; i < 1 << 15; i++) {
        values[i] = (float)(i * 7919 % 1000) / 500.0f;
    }
    if (!strcmp(loop, "quantize")) {
        const float steps = (float)((1 << bits) - 1);
        return quantize_base(values, size, 0, 0, steps / 2, bits, bits, 0, 1, 2, packed, 1 << 21);
    }
    if (!strcmp(loop, "dequantize")) {
        return dequantize_base(packed, 1 << 21, bits, bits, 0, 0.5, 0, values, size);
    }
    if (!strcmp(loop, "accumulate")) {
        return accumulate_base(packed, 1 << 21, bits, bits, 1, 3, 1, 1, total, size);
    }
    return code_sums_base(packed, 1 << 21, bits, bits, size, sums);
}
"""


def compiled(folder: Path) -> Path:
    """Compile the program and the loops for aarch64."""
    source, program = folder / "main.c", folder / "main"
    source.write_text(PROGRAM)
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-std=c11", "-O3",
         "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-DLEVEL=base",
         f"-I{NATIVE}", "-o", program, source,
         *(NATIVE / f"{name}.c" for name in ("quantize", "dequantize"))],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return program


def executed(program: Path, loop: str, bits: int, size: int) -> int:
    """Return how many instructions a run takes, from its start to its end."""
    log = program.with_name("trace")
    subprocess.run(
        ["qemu-aarch64-static", "-singlestep", "-d", "nochain,exec", "-D", log, program,
         loop, str(bits), str(size)],
        check=True,
    )  # fmt: skip
    with log.open("rb") as lines:
        return sum(1 for _ in lines)


def main() -> None:
    """Count and print."""
    table = Table(title="Instructions a value, aarch64 with NEON, counted under QEMU")
    table.add_column("bits", justify="right")
    for loop in LOOPS:
        table.add_column(loop, justify="right")
    with TemporaryDirectory() as name:
        program = compiled(Path(name))
        for bits in WIDTHS:
            counts = [
                executed(program, loop, bits, 2 * VALUES) - executed(program, loop, bits, VALUES)
                for loop in LOOPS
            ]
            table.add_row(str(bits), *(f"{count / VALUES:.1f}" for count in counts))
    Console().print(table)


if __name__ == "__main__":
    main()
