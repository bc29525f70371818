"""Compile the codec's loops to the shared library that `fedaq.codec.kernels` loads.

    python native/compile.py [--compiler COMMAND] [--strict] [--sanitize] [FILE]

`pip` does it for every wheel and every editable install (`hook.py`). The compiler is the one that
the environment's CC names, else this machine's `cc`, else clang out of the package `ziglang`.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
PLACE = Path("fedaq", "codec")

# Compiled once for each level.
SOURCES = ("quantize.c", "dequantize.c", "forms.c", "sums.c", "entropy.c", "classes.c", "given.c")
FLAGS = (
    "-std=c11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-fno-math-errno",
    "-fno-trapping-math", "-Wno-psabi",
    # Where products are exact it changes nothing; where one is not, other bytes would come out.
    "-ffp-contract=off",
)  # fmt: skip
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# What each level may use, by processor; `levels.c` asks the processor for just that.
LEVELS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "base": (),
        "sse4": ("-msse4.1", "-mpopcnt"),
        "avx2": ("-mavx2", "-mpopcnt"),
        "avx512": (
            "-mpopcnt", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl",
            "-mprefer-vector-width=512",
        ),
    },
    "aarch64": {"base": ()},
}  # fmt: skip
ZIG = "ziglang==0.17.1"


@dataclass(frozen=True)
class Target:
    """A platform for which wheels are made: its processor, zig's name of it, and pip's."""

    processor: str
    zig: str
    tag: str
    suffix: str


TARGETS = {
    "x86_64-linux": Target(
        "x86_64", "x86_64-linux-gnu.2.17", "manylinux2014_x86_64.manylinux_2_17_x86_64", ".so"
    ),
    "aarch64-linux": Target(
        "aarch64", "aarch64-linux-gnu.2.17", "manylinux2014_aarch64.manylinux_2_17_aarch64", ".so"
    ),
    "x86_64-macos": Target("x86_64", "x86_64-macos.11.0", "macosx_11_0_x86_64", ".dylib"),
    "aarch64-macos": Target("aarch64", "aarch64-macos.11.0", "macosx_11_0_arm64", ".dylib"),
    "x86_64-windows": Target("x86_64", "x86_64-windows-gnu", "win_amd64", ".dll"),
}


def this_processor() -> str:
    """Return the name of this machine's processor as `LEVELS` has it.

    Raises
    ------
    SystemExit
        If there are no loops for it.
    """
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if name not in LEVELS:
        raise SystemExit(
            f"fedaq: a processor of kind {name!r}; there are loops for {' and '.join(LEVELS)}, "
            "of 64 bits each: a 64-bit system and Python are needed"
        )
    return name


def this_suffix() -> str:
    """Return what the names of shared libraries end with here."""
    return {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


def compiler() -> list[str]:
    """Return the command that compiles C on this machine."""
    named = os.environ.get("CC")
    if named:
        return shlex.split(named)
    found = None if sys.platform == "win32" else shutil.which("cc")
    return [found] if found else zig()


def zig() -> list[str]:
    """Return the command of clang in the package `ziglang`."""
    return [sys.executable, "-m", "ziglang", "cc"]


def compile_loops(
    command: Sequence[str], processor: str, out: Path, extra: Sequence[str] = ()
) -> None:
    """Compile every level for a processor, and link them to one library.

    Raises
    ------
    SystemExit
        If the compiler fails or is not there; it has said why.
    """
    with TemporaryDirectory() as folder:
        jobs: list[tuple[tuple[str, ...], Path, Path]] = [
            ((), HERE / "levels.c", Path(folder, "levels.o")),
            *(
                ((*flags, f"-DLEVEL={level}"), HERE / name, Path(folder, f"{level}-{name}.o"))
                for level, flags in LEVELS[processor].items()
                for name in SOURCES
            ),
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda job: _compile([*command, *FLAGS, *extra], *job), jobs))
        out.parent.mkdir(parents=True, exist_ok=True)
        # Never a half-written library in the place of a whole one.
        partial = Path(folder, f"linked{out.suffix}")
        stripped = ("-s",) if out.suffix == ".so" and not extra else ()
        _run([*command, *extra, *stripped, "-shared", "-o", partial, *(job[2] for job in jobs)])
        beside = out.with_name(f"{out.name}.new")
        shutil.copy(partial, beside)
        beside.replace(out)


def _compile(command: Sequence[str], flags: Sequence[str], source: Path, out: Path) -> None:
    _run([*command, *flags, "-c", source, "-o", out])


def _run(command: Sequence[str | Path]) -> None:
    try:
        done = subprocess.run(command, check=False)
    except OSError as error:
        raise SystemExit(f"fedaq: {command[0]}: {error.strerror}; set CC to a C compiler") from None
    if done.returncode:
        raise SystemExit(f"fedaq: the loops were not compiled: {shlex.join(map(str, command))}")


def main() -> None:
    """Compile for this machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="where to put it")
    parser.add_argument("--compiler", type=shlex.split, metavar="COMMAND", help="instead of CC")
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--sanitize", action="store_true", help="with ASan and UBSan")
    given = parser.parse_args()
    out = given.file or HERE.parent / "common" / PLACE / f"loops{this_suffix()}"
    extra = (*(STRICT if given.strict else ()), *(SANITIZE if given.sanitize else ()))
    compile_loops(given.compiler or compiler(), this_processor(), out, extra)
    print(out)


if __name__ == "__main__":
    main()
