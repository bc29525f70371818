"""Write what numba makes of the loops: LLVM's intermediate representation, as text.

    python loops/emit.py [FILE]

The text is the same for every processor and whenever it is made, by the same versions of the
tools. It is simplified, as that makes it a tenth as long, but not fitted to a processor: that is
left to `fedaq.codec.machine_code`, with all that is gained by vectors.
"""

import os
import platform
import sys
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from fedaq.codec.kernels import GROUP, PACK_BLOCK, SIGNATURES, UNPACK_BLOCK

HERE = Path(__file__).parent
FILE = HERE.parent / "common" / "fedaq" / "codec" / "loops.ll"
# `simplify_cfg` comes last: it can hide how often a loop runs, if it is not yet plain.
SIMPLIFY = 2 * ("sroa", "instruction_combine", "simplify_cfg")
STRIP = ("aggressive_dce", "global_dead_code_eliminate", "strip_dead_prototype", "strip_symbols")


def heading() -> str:
    """Return the comment that says what the text was made from, and by what."""
    return (
        "; The inner loops of the codec. Written by `make loops`; do not edit.\n"
        f"; From {_sources()}\n"
        f"; by {_tools()}\n"
    )


def _sources() -> str:
    digest = blake2b(digest_size=16)
    for name in ("loops.py", "emit.py"):
        digest.update((HERE / name).read_bytes())
    digest.update(repr((GROUP, PACK_BLOCK, UNPACK_BLOCK)).encode())
    for name, kinds in SIGNATURES.items():
        digest.update(f"{name} {[kind._type_ for kind in kinds]}".encode())
    return digest.hexdigest()


def _tools() -> str:
    major, minor, _ = platform.python_version_tuple()
    return (
        f"numba {version('numba')}, llvmlite {version('llvmlite')}, "
        f"Python {major}.{minor}, {platform.machine()}"
    )


def text() -> str:
    """Compile the loops and return the text."""
    # What numba optimizes is fitted to this processor.
    os.environ["NUMBA_OPT"] = "0"
    from loops import LOOPS

    module = llvm.parse_assembly("")
    for name, loop in LOOPS.items():
        # Of arguments without aliases, traces would be left that bear numba's names.
        made = loop.library.get_llvm_str().replace("noalias captures(none) ", "")
        module.link_in(llvm.parse_assembly(made))
        module.link_in(_entry(name, module.get_function(loop.fndesc.mangled_name)))
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in LOOPS:
            value.linkage = "internal"
            if value.is_function:
                value.add_function_attribute("alwaysinline")
    _simplify(module)
    module.name = "loops"
    return heading() + str(module)


def _entry(name: str, function: Any) -> Any:
    """Return a module of one function, of C, that calls what numba made of a loop."""
    kinds = [str(argument.type) for argument in function.arguments]
    # Before its own arguments, numba's function takes places for its result and an exception.
    given = ", ".join(f"{kind} %{number}" for number, kind in enumerate(kinds[2:]))
    return llvm.parse_assembly(f"""
        declare i32 @"{function.name}"({", ".join(kinds)})
        define void @{name}({given}) {{
            %result = alloca ptr
            %exception = alloca ptr
            call i32 @"{function.name}"(ptr %result, ptr %exception, {given})
            ret void
        }}
    """)


def _simplify(module: Any) -> None:
    """Make one short function of each loop, in a way that suits every processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module.triple = llvm.get_process_triple()
    target = llvm.Target.from_triple(module.triple).create_target_machine(cpu="", features="")
    module.data_layout = str(target.target_data)
    passes = llvm.create_new_module_pass_manager()
    for name in ("always_inliner", *SIMPLIFY, *STRIP):
        getattr(passes, f"add_{name}_pass")()
    passes.run(module, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    module.triple = module.data_layout = ""


if __name__ == "__main__":
    [file] = map(Path, sys.argv[1:]) if sys.argv[1:] else [FILE]
    file.write_text(text())
