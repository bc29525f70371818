"""Run the tests that reach the codec's loops with loops that check themselves.

    python native/sanitized.py [PYTEST ARGUMENTS]

gcc's AddressSanitizer and UBSan end the process at the first access outside a buffer, misaligned
pointer, overflow or shift that C does not define. They must be in a process before Python is, so
the tests run in one that is started with them.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/common/test_kernels.py",
    "tests/common/test_loop_refusals.py",
    "tests/common/test_class_loops.py",
    "tests/common/test_given_coder.py",
    "tests/common/test_random_numbers.py",
    "tests/common/test_entropy.py",
    "tests/common/test_chunks.py",
    "tests/wire",
)


def main() -> int:
    """Compile with gcc, test, and return pytest's exit code."""
    with TemporaryDirectory() as folder:
        library = Path(folder, "loops.so")
        subprocess.run(
            [sys.executable, ROOT / "native" / "compile.py", "--sanitize", "--compiler", "gcc",
             library],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        runtimes = [
            subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip()
            for name in ("libasan.so", "libubsan.so")
        ]
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-s", f"--loops={library}", "-p", "no:cacheprovider",
             *(sys.argv[1:] or TESTS)],
            cwd=ROOT, check=False,
            # Python itself leaves memory behind at its end.
            env={**os.environ, "LD_PRELOAD": " ".join(runtimes), "ASAN_OPTIONS": "detect_leaks=0"},
        ).returncode  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
