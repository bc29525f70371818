"""Make a wheel for every platform, and check what the ones for Linux need there.

    python native/wheels.py FOLDER

The loops are compiled by clang out of `ziglang`, for each platform from any other. auditwheel
checks those for Linux. Those for macOS and Windows are built, and were run nowhere yet.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from compile import TARGETS, Target

ROOT = Path(__file__).parents[1]


def made(name: str, folder: Path) -> Path:
    """Make the wheel of a platform."""
    before = set(folder.glob("*.whl"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--wheel-dir", folder, ROOT],
        check=True, env={**os.environ, "FEDAQ_WHEEL": name},
    )  # fmt: skip
    [wheel] = set(folder.glob("*.whl")) - before
    return wheel


def checked(wheel: Path, target: Target) -> str:
    """Return what auditwheel says that a wheel for Linux may be called.

    Raises
    ------
    SystemExit
        If that is not what it is called.
    """
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", "--json", wheel],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: str = json.loads(shown.stdout)["overall_tag"]
    # Whoever needs an older system than the name promises runs on all that it promises.
    if _glibc(found) > _glibc(target.tag):
        raise SystemExit(f"{wheel.name}: auditwheel calls it {found}")
    return found


def _glibc(tag: str) -> tuple[int, ...]:
    _, major, minor, *_ = tag.rsplit(".", maxsplit=1)[-1].split("_")
    return int(major), int(minor)


def main() -> None:
    """Make all, anew."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("fedaq-*.whl"):
        old.unlink()
    for name, target in TARGETS.items():
        wheel = made(name, folder)
        said = checked(wheel, target) if "linux" in name else "built, not run"
        print(f"{wheel.stat().st_size / 1e3:7.0f} kB  {wheel.name}  ({said})", flush=True)


if __name__ == "__main__":
    main()
