"""The C sources of the loops, as compilers and a reader see them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedaq.codec import kernels

NATIVE = Path(__file__).parents[2] / "native"
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_sources_compile_without_a_warning_and_give_the_same_bytes(
    compiler: str, tmp_path: Path
) -> None:
    """Every level that this processor has, by each compiler that is here."""
    library = tmp_path / "loops.so"
    subprocess.run(
        [sys.executable, NATIVE / "compile.py", "--strict", "--compiler", compiler, library],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    program = (
        "import sys; from pathlib import Path\n"
        "from fedaq.codec import kernels; from common import test_kernels\n"
        "kernels.LIBRARY = Path(sys.argv[1])\n"
        "for level in kernels.levels():\n"
        "    kernels._loops = lambda: kernels.at_level(level)\n"
        "    assert test_kernels.digest_of_everything() == test_kernels.DIGEST, level\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, library], check=True, cwd=Path(__file__).parents[1]
    )


def test_the_header_documents_every_loop_and_its_arguments_are_those_of_the_caller() -> None:
    text = (NATIVE / "loops.h").read_text()
    found = re.findall(r"\*/\nEXPORTED int32_t LOOP\((\w+)\)\(([^)]*)\)", text)
    assert {name: len(arguments.split(",")) for name, arguments in found} == {
        name: len(arguments) for name, arguments in kernels.SIGNATURES.items()
    }


def test_the_library_in_use_is_made_from_these_sources() -> None:
    sources = [*NATIVE.glob("*.[ch]"), NATIVE / "compile.py"]
    newest = max(source.stat().st_mtime for source in sources)
    if kernels.LIBRARY.parents[3] == NATIVE.parent:
        assert kernels.LIBRARY.stat().st_mtime >= newest, "older than its sources: make native"
