"""What pip calls when it builds fedaq: it puts the compiled loops into the wheel.

On a machine without a compiler pip fetches one for as long as it builds. With FEDAQ_WHEEL set to
one of `TARGETS`, a wheel for that platform is made, by clang out of `ziglang`.
"""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from compile import (
    PLACE,
    TARGETS,
    ZIG,
    compile_loops,
    compiler,
    this_processor,
    this_suffix,
    zig,
)


class LoopsHook(BuildHookInterface[Any]):
    """Puts the library into a wheel, or beside the sources of an editable install."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what pip must fetch before it builds."""
        needs_zig = "FEDAQ_WHEEL" in os.environ or compiler() == zig()
        return [ZIG] if needs_zig else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; called before a wheel is made."""
        root, wanted = Path(self.root), os.environ.get("FEDAQ_WHEEL")
        build_data["pure_python"] = False
        if version == "editable":
            compile_loops(
                compiler(), this_processor(), root / "common" / PLACE / f"loops{this_suffix()}"
            )
            return
        if wanted is None:
            command, processor, suffix = compiler(), this_processor(), this_suffix()
            tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        else:
            target = TARGETS[wanted]
            command = [*zig(), "-target", target.zig]
            processor, suffix, tag = target.processor, target.suffix, target.tag
        made = Path(self.directory) / "native" / f"loops{suffix}"
        compile_loops(command, processor, made)
        # Called through ctypes, so for every version of Python.
        build_data["tag"] = f"py3-none-{tag}"
        build_data["force_include"][str(made)] = str(PLACE / made.name)
