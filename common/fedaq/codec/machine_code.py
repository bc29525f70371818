"""Machine code of the loops that runs without the compiler which made it.

    python -m fedaq.codec.machine_code > IMAGE

compiles ``loops.ll``, which is the same for all processors, for this one, and links the result
to an image: one block of bytes that runs at any address, where a line of JSON says at which
offset each loop begins. `load` maps an image into this process.

The linker knows ELF objects for x86-64 and aarch64, and no more of them than these loops
need: code and constants that refer to each other relative to their own place, and calls of
`LIBRARY`, into which the compiler may turn a loop that copies. Of anything else it says so,
and the caller does without an image.
"""

import ctypes
import json
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What numba made of the loops: `make loops`.
LOOPS = Path(__file__).with_name("loops.ll")
# Functions of the C library that the code may call, each through a stub: a jump to the address
# that follows it and that `load` fills in.
LIBRARY = ("memcpy", "memset")
STUB_BYTES = 16
# Room for the line of JSON. The code follows on a new page, as aarch64's addressing wants it.
HEADER_BYTES = 4096

_SHT_SYMTAB = 2
_SHT_RELA = 4
_SHT_NOBITS = 8
_SHF_WRITE = 1
_SHF_ALLOC = 2
_SHN_UNDEF = 0


class UnavailableError(Exception):
    """There is no image for this system."""


def load(image: bytes) -> dict[str, int]:
    """Map an image into memory, for good, and return the address of every loop.

    Raises
    ------
    UnavailableError
        If this system does not let code be mapped.
    """
    import numpy as np  # to compile takes less time without

    header = json.loads(image[:HEADER_BYTES])
    linked = bytearray(image)
    library = ctypes.CDLL(None)
    for name, place in header["library"].items():
        function = ctypes.cast(getattr(library, name), ctypes.c_void_p)
        struct.pack_into("<Q", linked, place, function.value)
    try:
        file = os.memfd_create("fedaq")
        os.write(file, linked)
        # Never both writable and executable: some systems forbid it.
        code = mmap.mmap(file, len(image), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
        os.close(file)
    except (OSError, AttributeError):
        raise UnavailableError from None
    _KEPT.append(code)
    start = np.frombuffer(code, np.uint8).ctypes.data
    return {name: start + offset for name, offset in header["loops"].items()}


# What holds machine code stays: the functions that point there do not keep it.
_KEPT: list[Any] = []


@dataclass(frozen=True)
class Section:
    """A section of an ELF object."""

    name: str
    kind: int
    flags: int
    data: bytes
    link: int
    info: int
    align: int

    @property
    def needed(self) -> bool:
        """Whether it is code or constants, and not what debuggers and unwinders read."""
        return (
            self.flags & (_SHF_ALLOC | _SHF_WRITE) == _SHF_ALLOC
            and self.kind != _SHT_NOBITS
            and self.name != ".eh_frame"
        )


def link(machine_object: bytes, loops: list[str]) -> bytes:
    """Return the image of an ELF object that holds these loops.

    Raises
    ------
    UnavailableError
        If the object holds or refers to what an image cannot have.
    """
    (machine,) = struct.unpack_from("<H", machine_object, 18)
    sections = _sections(machine_object)
    image = bytearray(HEADER_BYTES)
    if machine not in _JUMPS:
        raise UnavailableError(f"machine {machine}")
    jump = _JUMPS[machine]
    stubs = {name: HEADER_BYTES + number * STUB_BYTES for number, name in enumerate(LIBRARY)}
    for _ in stubs:
        image += jump.ljust(STUB_BYTES, b"\0")
    places: dict[int, int] = {}
    for number, section in enumerate(sections):
        if section.needed:
            image += bytes(-len(image) % max(section.align, 1))
            places[number] = len(image)
            image += section.data
    for section in sections:
        if section.kind == _SHT_RELA and section.info in places:
            symbols = list(_symbols(sections, sections[section.link]))
            for offset, info, addend in struct.iter_unpack("<QQq", section.data):
                name, home, value = symbols[info >> 32]
                if name in LIBRARY and home == _SHN_UNDEF:
                    target = stubs[name]
                elif home in places:
                    target = places[home] + value
                else:
                    raise UnavailableError(f"the code refers to {name or home}")
                relocate = _RELOCATIONS.get((machine, info & 0xFFFFFFFF))
                if relocate is None:
                    raise UnavailableError(f"machine {machine}, relocation {info & 0xFFFFFFFF}")
                relocate(image, places[section.info] + offset, target + addend)
    found = {
        name: places[home] + value
        for section in sections
        if section.kind == _SHT_SYMTAB
        for name, home, value in _symbols(sections, section)
        if home in places
    }
    header = json.dumps(
        {
            "loops": {name: found[name] for name in loops},
            "library": {name: stub + len(jump) for name, stub in stubs.items()},
        }
    )
    image[:HEADER_BYTES] = header.encode().ljust(HEADER_BYTES)
    return bytes(image)


def _sections(machine_object: bytes) -> list[Section]:
    (table,) = struct.unpack_from("<Q", machine_object, 40)
    size, count, names_index = struct.unpack_from("<HHH", machine_object, 58)
    headers = [
        struct.unpack_from("<IIQQQQIIQQ", machine_object, table + size * number)
        for number in range(count)
    ]
    names = headers[names_index][4]
    return [
        Section(
            _string(machine_object, names + name),
            kind,
            flags,
            b"" if kind == _SHT_NOBITS else machine_object[offset : offset + length],
            linked,
            info,
            align,
        )
        for name, kind, flags, _, offset, length, linked, info, align, _ in headers
    ]


def _symbols(sections: list[Section], table: Section) -> Iterator[tuple[str, int, int]]:
    """Yield name, section and value of every symbol."""
    names = sections[table.link].data
    for name, _, _, home, value, _ in struct.iter_unpack("<IBBHQQ", table.data):
        yield _string(names, name), home, value


def _string(data: bytes, start: int) -> str:
    return data[start : data.index(0, start)].decode()


def _relative32(image: bytearray, place: int, target: int) -> None:
    struct.pack_into("<i", image, place, target - place)


def _instruction(field: Callable[[int, int], int]) -> Callable[[bytearray, int, int], None]:
    """Return a relocation that sets bits of an aarch64 instruction."""

    def relocate(image: bytearray, place: int, target: int) -> None:
        (instruction,) = struct.unpack_from("<I", image, place)
        struct.pack_into("<I", image, place, instruction | field(place, target))

    return relocate


def _page(place: int, target: int) -> int:
    pages = (target >> 12) - (place >> 12)
    return (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5


def _in_page(shift: int) -> Callable[[int, int], int]:
    return lambda place, target: (target & 0xFFF) >> shift << 10


def _branch(place: int, target: int) -> int:
    return (target - place) >> 2 & 0x3FFFFFF


_X86_64, _AARCH64 = 62, 183
_JUMPS = {
    _X86_64: bytes.fromhex("ff2500000000"),  # jmp *(%rip)
    _AARCH64: bytes.fromhex("5000005800021fd6"),  # ldr x16, 8; br x16
}
_RELOCATIONS: dict[tuple[int, int], Callable[[bytearray, int, int], None]] = {
    (_X86_64, 2): _relative32,  # PC32
    (_X86_64, 4): _relative32,  # PLT32
    (_AARCH64, 261): _relative32,  # PREL32
    (_AARCH64, 275): _instruction(_page),  # ADR_PREL_PG_HI21
    (_AARCH64, 277): _instruction(_in_page(0)),  # ADD_ABS_LO12_NC
    (_AARCH64, 278): _instruction(_in_page(0)),  # LDST8_ABS_LO12_NC
    (_AARCH64, 284): _instruction(_in_page(1)),  # LDST16_ABS_LO12_NC
    (_AARCH64, 285): _instruction(_in_page(2)),  # LDST32_ABS_LO12_NC
    (_AARCH64, 286): _instruction(_in_page(3)),  # LDST64_ABS_LO12_NC
    (_AARCH64, 299): _instruction(_in_page(4)),  # LDST128_ABS_LO12_NC
    (_AARCH64, 282): _instruction(_branch),  # JUMP26
    (_AARCH64, 283): _instruction(_branch),  # CALL26
}


def compile_image() -> bytes:
    """Compile the loops for this processor, and return their image.

    Raises
    ------
    UnavailableError
        If the machine code is of a kind that the linker does not know.
    """
    module, target = _optimized(reloc="pic", codemodel="small")
    return link(target.emit_object(module), _loops(module))


def compile_here() -> dict[str, int]:
    """Compile the loops into the memory of this process, and return the address of each."""
    import llvmlite.binding as llvm

    module, target = _optimized(reloc="default", codemodel="jitdefault")
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    _KEPT.append(engine)
    return {name: engine.get_function_address(name) for name in _loops(module)}


def _optimized(**options: str) -> tuple[Any, Any]:
    """Return LLVM's module of the loops, and the target that it is optimized for."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(LOOPS.read_text())
    module.triple = llvm.get_process_triple()
    target = llvm.Target.from_triple(module.triple).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        **options,
    )
    module.data_layout = str(target.target_data)
    passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(3))
    passes.getModulePassManager().run(module, passes)
    return module, target


def _loops(module: Any) -> list[str]:
    return [function.name for function in module.functions if not function.is_declaration]


if __name__ == "__main__":
    sys.stdout.buffer.write(compile_image())
