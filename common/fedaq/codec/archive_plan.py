"""How the tensors of an archive are coded, as one payload of the wire.

Tensors whose values are quantized come first, each as one tensor of the payload. Of each that
travels exactly, every byte of its numbers is a tensor of its own, of codes of 8 bits whose values
are those of the byte: exponents lie side by side then, and have little entropy.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import coding, headers, payload, quantizer
from fedaq.codec.arrays import FLOATS, Array, Layout, empty
from fedaq.codec.chunks import Chunk
from fedaq.codec.model import MAX_TENSORS, ModelSpec, TensorSpec
from fedaq.codec.payload import ZERO, Payload, TensorCode
from fedaq.codec.quantizer import Floats, Key, Range
from fedaq.errors import CodecError, NotFiniteError, ProtocolError
from fedaq.v1 import archive_pb2

# The most code bytes of a chunk: of codes of 1 bit, its values take 8 MiB as float32.
CHUNK_BYTES = 2**18
BYTE = TensorCode(8, step=1.0)
# Numbers whose range is measured at a time, where they are first made float32.
_MEASURED = 2**20


@dataclass(frozen=True)
class Plan:
    """An archive before its codes.

    Attributes
    ----------
    arrays : tuple of Array
        In the order of whoever gave them.
    exact : tuple of bool
        Which of them travel exactly.
    codes : tuple of TensorCode
        Of the payload's tensors.
    single : bool
        Whether it is one tensor without a name.
    """

    arrays: tuple[Array, ...]
    exact: tuple[bool, ...]
    codes: tuple[TensorCode, ...]
    single: bool

    @cached_property
    def header(self) -> Payload:
        """The header of the payload."""
        return Payload(spec([array.layout for array in self.arrays], self.exact), self.codes)

    @cached_property
    def sources(self) -> tuple[tuple[Array, int | None], ...]:
        """Where each tensor of the payload comes from: an array, and which byte of it."""
        pairs = list(zip(self.arrays, self.exact, strict=True))
        return (
            *((array, None) for array, exact in pairs if not exact),
            *(
                (array, place)
                for array, exact in pairs
                if exact
                for place in range(array.layout.number_bytes)
            ),
        )

    @cached_property
    def border(self) -> int:
        """Where the code bytes of exact tensors begin."""
        return self.header.starts[self.exact.count(False)]

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield offset and length of the chunks; none has tensors of both kinds."""
        for offset, length in self.header.chunks(CHUNK_BYTES):
            end = offset + length
            if offset < self.border < end:
                yield offset, self.border - offset
                yield self.border, end - self.border
            else:
                yield offset, length

    def chunk(self, offset: int, length: int, keys: tuple[Key, ...], *, nearest: bool) -> Chunk:
        """Return a chunk: quantized if need be, and entropy-coded where that is shorter."""
        if offset < self.border:
            chunk, _ = coding.encode(
                self.header, self._floats, keys, offset, length, 0, squeeze=True, nearest=nearest
            )
            return chunk
        content = []
        for piece in self.header.pieces(offset, length):
            array, place = self.sources[piece.tensor]
            assert place is not None
            part = array.byte(place)[piece.first : piece.first + piece.values]
            content.append((piece, byte_codes(part)))
        return coding.to_chunk(content, offset, length, 0)

    def _floats(self, part: slice) -> Floats:
        number = bisect_right(self._starts, part.start) - 1
        first = part.start - self._starts[number]
        return self.sources[number][0].floats(slice(first, first + part.stop - part.start))

    @cached_property
    def _starts(self) -> list[int]:
        return [part.start for part in self.header.spec.slices]

    def to_message(self) -> archive_pb2.Archive:
        """Return the header of the archive."""
        layouts = [array.layout for array in self.arrays]
        return archive_pb2.Archive(
            single=self.single,
            tensors=[
                archive_pb2.ArchivedTensor(
                    name=one.name, shape=one.shape, dtype=one.dtype, torch=one.torch, exact=exact
                )
                for one, exact in zip(layouts, self.exact, strict=True)
            ],
            payload=payload.to_message(self.header, 0),
        )


def byte_codes(values: NDArray[np.uint8]) -> coding.Codes:
    """Return bytes as codes of 8 bits."""
    return coding.Codes(BYTE, np.ascontiguousarray(values), BYTE.bits, len(values))


def spec(layouts: Sequence[Layout], exact: Sequence[bool]) -> ModelSpec:
    """Return the tensors of the payload that an archive of these tensors has.

    Raises
    ------
    CodecError
        If they are too many.
    """
    pairs = list(zip(layouts, exact, strict=True))
    if sum(one.number_bytes if exact else 1 for one, exact in pairs) > MAX_TENSORS:
        raise CodecError(
            f"an archive has at most {MAX_TENSORS} tensors, each byte of a number that travels "
            "exactly counted as one"
        )
    coded = [TensorSpec(one.name, (one.numbers,)) for one, exact in pairs if not exact]
    planes = [
        TensorSpec(f"{one.name} byte {place}", (one.numbers,))
        for one, exact in pairs
        if exact
        for place in range(one.number_bytes)
    ]
    return ModelSpec((*coded, *planes))


# ---- Which codes -----------------------------------------------------------------


def measured(arrays: Sequence[Array]) -> tuple[Range | None, ...]:
    """Return the range of every tensor that can be quantized, and None for the others.

    Raises
    ------
    CodecError
        If it holds NaN, infinity or what is too large for float32.
    """
    return tuple(_range(array) if array.layout.dtype in FLOATS else None for array in arrays)


def _range(array: Array) -> Range:
    lo, hi = 0.0, 0.0
    try:
        for first in range(0, array.layout.numbers, _MEASURED):
            found = quantizer.value_range(array.floats(slice(first, first + _MEASURED)))
            lo, hi = (min(lo, found.lo), max(hi, found.hi)) if first else (found.lo, found.hi)
    except NotFiniteError as error:
        raise CodecError(
            f"{array.layout} cannot be quantized: {error}; without step, grid_bits and ratio it "
            "travels exactly"
        ) from None
    return Range(lo, hi)


def exactly(arrays: tuple[Array, ...], *, single: bool) -> Plan:
    """Return the plan that loses nothing."""
    return _plan(arrays, [None] * len(arrays), single)


def with_step(
    arrays: tuple[Array, ...], ranges: Sequence[Range | None], step: float, *, single: bool
) -> Plan:
    """Return the plan with one quantization step for all values.

    A tensor of which that would take codes of more than 16 bits travels exactly.
    """
    codes = [_step_code(bounds, step) if bounds else None for bounds in ranges]
    return _plan(arrays, codes, single)


def _step_code(bounds: Range, step: float) -> TensorCode | None:
    code = payload.step_code(bounds, step)
    return code if code.step == float(np.float32(step)) else None


def with_grid(
    arrays: tuple[Array, ...], ranges: Sequence[Range | None], bits: int, *, single: bool
) -> Plan:
    """Return the plan with ``2**bits`` codes over the range of each tensor."""
    codes = [TensorCode(bits, bounds) if bounds else None for bounds in ranges]
    return _plan(arrays, codes, single)


def _plan(arrays: tuple[Array, ...], codes: Sequence[TensorCode | None], single: bool) -> Plan:
    exact = tuple(code is None for code in codes)
    # Those that are all zeros are said to be.
    coded = [
        code if _any(array.data) else ZERO
        for array, code in zip(arrays, codes, strict=True)
        if code is not None
    ]
    planes = [
        BYTE if _any(array.byte(place)) else ZERO
        for array, alone in zip(arrays, exact, strict=True)
        if alone
        for place in range(array.layout.number_bytes)
    ]
    plan = Plan(arrays, exact, (*coded, *planes), single)
    try:
        headers.from_message(plan.header.spec, payload.to_message(plan.header, 0))
    except ProtocolError as error:
        raise CodecError(f"{error}; without step, grid_bits and ratio it travels exactly") from None
    return plan


def _any(values: NDArray[Any]) -> bool:
    # Usually there is one among the first.
    return bool(values[:64].any() or values.any())


# ---- What came from elsewhere ----------------------------------------------------


def from_message(message: archive_pb2.Archive, max_bytes: int) -> Plan:
    """Read the header of an archive; its arrays are zeros that take no memory yet.

    Raises
    ------
    CodecError
        If it cannot be, or its tensors take more than `max_bytes` bytes.
    ProtocolError
        If the header of the payload does not fit the tensors.
    """
    if len(message.tensors) > MAX_TENSORS:
        raise CodecError(f"it has more than {MAX_TENSORS} tensors")
    layouts = [Layout(one.name, tuple(one.shape), one.dtype, one.torch) for one in message.tensors]
    exact = tuple(one.exact for one in message.tensors)
    _check_names([layout.name for layout in layouts], single=message.single)
    for layout, alone in zip(layouts, exact, strict=True):
        if layout.dtype not in FLOATS and not alone:
            raise CodecError(f"{layout}: values of type {layout.dtype} are never quantized")
    needed = sum(layout.bytes for layout in layouts)
    if needed > max_bytes:
        raise CodecError(f"its tensors take {needed} bytes, more than max_bytes={max_bytes}")
    header = headers.from_message(spec(layouts, exact), message.payload)
    if any(code not in (BYTE, ZERO) for code in header.codes[exact.count(False) :]):
        raise CodecError("a tensor that travels exactly is not in codes of 8 bits")
    arrays = tuple(map(empty, layouts))
    return Plan(arrays, exact, header.codes, message.single)


def _check_names(names: list[str], *, single: bool) -> None:
    if single and names != [""]:
        raise CodecError("it is said to be one tensor without a name, and is not")
    if not single and ("" in names or len(set(names)) < len(names)):
        raise CodecError("names of its tensors are empty or not told apart")
