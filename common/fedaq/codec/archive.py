"""Archives: tensors as bytes for whoever has a transport of their own.

What is in one is coded as on the wire (docs/reference/wire-format.md); docs/reference/codec.md has
the bytes around it. `encode`, `decode` and `estimate` are exported by `fedaq.codec`.
"""

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import BytesIO
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

import numpy as np
from google.protobuf.message import DecodeError

from fedaq.codec import archive_plan, archive_size, chunks, coding
from fedaq.codec.archive_plan import CHUNK_BYTES, Plan
from fedaq.codec.archive_size import END_BYTES, LENGTH_BYTES, START_BYTES
from fedaq.codec.arrays import FLOATS, Array, taken
from fedaq.codec.chunks import Chunk
from fedaq.codec.quantizer import MAX_BITS, MIN_BITS, SMALLEST_STEP
from fedaq.errors import CodecError, ProtocolError, printable
from fedaq.v1 import archive_pb2, federation_pb2

if TYPE_CHECKING:
    from fedaq.codec.arrays import Values

# No text begins like this.
MAGIC = b"\xfaFAQ"
VERSION = 1
# A header has about 80 bytes a tensor; what protobuf makes of one can be many times as large.
MAX_HEADER_BYTES = 2**23
MAX_BYTES = 2**32

Item = TypeVar("Item")
Result = TypeVar("Result")


def encode(
    values: "Values",
    *,
    step: float | None = None,
    grid_bits: int | None = None,
    ratio: float | None = None,
    seed: int | None = None,
    threads: int = 1,
) -> bytes:
    """Encode tensors as one archive.

    At most one of `step`, `grid_bits` and `ratio` is given; without any, nothing is lost. Each
    concerns floating-point and complex values (complex ones are two values) of all types but
    float8; integers, truth values and float8 travel exactly.

    Parameters
    ----------
    values : numpy array, torch tensor, or mapping of str to them
        Of any shape: a ``state_dict()``, for example. They may be on any device.
    step : float, optional
        Quantization step, in the unit of the values, for all of them: codes are its multiples. A
        tensor whose range is more than 2**16 steps travels exactly.
    grid_bits : int, optional
        1 to 16: each tensor is coded in ``2**grid_bits`` values evenly spread over its own range.
        The codes are entropy-coded, so they take at most that many bits a value.
    ratio : float, optional
        How many times smaller the archive is, at least, than all values as float32 (and what
        travels exactly, as it is). The finest step that achieves it is taken for all values; or
        nothing is lost, if that is small enough.
    seed : int, optional
        Round at random instead of to the nearest, so that the expected error of every value is 0.
        Draw it anew for each archive whose errors shall be independent.
    threads : int
        How many chunks are coded at a time; the bytes do not depend on it.

    Returns
    -------
    bytes
        An archive of version 1. The same arguments give the same codes on every host, and the same
        bytes with the same version of zstd.

    Raises
    ------
    CodecError
        If something is no tensor, has a type that cannot be archived, or holds values that cannot
        be quantized (NaN, infinity, magnitudes beyond 2**126); or if the ratio is out of reach.

    Notes
    -----
    To the nearest, an error is at most half a step, and where values spread over more than a step
    it is uniform, of variance ``step**2 / 12``. At random (with a seed), it is less than a step,
    has the mean 0 whatever the value, and a variance of ``step**2 / 6`` on average and
    ``step**2 / 4`` at most. To both comes the rounding of float32 (up to a hundredth of a step) and
    of the tensor's own type.
    """
    arrays, single = taken(values)
    limit = _limit(arrays, ratio)
    plan = _planned(arrays, single, step, grid_bits, limit, seed)
    while True:
        archive = _written(plan, seed, threads)
        length = len(archive)
        if length <= limit:
            return archive
        del archive  # before there is another
        plan = archive_size.coarser(plan, length, limit, seed)


def estimate(
    values: "Values",
    *,
    step: float | None = None,
    grid_bits: int | None = None,
    ratio: float | None = None,
    seed: int | None = None,
) -> int:
    """Return about how many bytes `encode` would make of tensors, which it takes as they are.

    Large tensors are sampled: of more than 4 million values, about as many are coded.

    Returns
    -------
    int
        Within a few percent where the values of a tensor are of one kind from its beginning to its
        end; exact where they are few.

    Raises
    ------
    CodecError
        As `encode`.
    """
    arrays, single = taken(values)
    plan = _planned(arrays, single, step, grid_bits, _limit(arrays, ratio), seed)
    return round(archive_size.estimated(plan, seed))


def decode(
    archive: bytes | bytearray | memoryview, *, max_bytes: int = MAX_BYTES, threads: int = 1
) -> Any:
    """Return the tensors of an archive, as what they were: types, shapes, names and their order.

    Parameters
    ----------
    archive : bytes-like
        From anyone: every length is checked before memory is taken for it, and nothing in it is
        executed.
    max_bytes : int
        What the tensors may take in memory, 4 GiB if nothing is said. Beyond it come some 20 MB a
        thread, and the header, which has 8 MiB at most.
    threads : int
        How many chunks are decoded at a time.

    Returns
    -------
    numpy array, torch tensor, or dict of str to them
        In row-major order, in the memory of the host.

    Raises
    ------
    CodecError
        If the bytes are no whole archive, one of another version, or one of more than `max_bytes`.
    """
    view = memoryview(archive).cast("B")
    try:
        header, at = _header(view)
        plan = archive_plan.from_message(header, max_bytes)
        for _ in _mapped(
            partial(_decode_into, plan), _chunks(view[:-END_BYTES], at, plan), threads
        ):
            pass
    except (DecodeError, ProtocolError) as error:
        raise CodecError(printable(f"the archive is broken: {error}")) from None
    if plan.single:
        return plan.arrays[0].value()
    return {array.layout.name: array.value() for array in plan.arrays}


def _limit(arrays: Sequence[Array], ratio: float | None) -> float:
    """Return how many bytes an archive may have."""
    if ratio is None:
        return inf
    if not (isfinite(ratio) and ratio > 0):
        raise CodecError(f"ratio={ratio}: a ratio is finite and above 0")
    return (
        sum(
            4 * array.layout.numbers if array.layout.dtype in FLOATS else array.layout.bytes
            for array in arrays
        )
        / ratio
    )


def _planned(
    arrays: tuple[Array, ...],
    single: bool,
    step: float | None,
    grid_bits: int | None,
    limit: float,
    seed: int | None,
) -> Plan:
    if sum((step is not None, grid_bits is not None, limit < inf)) > 1:
        raise CodecError("step, grid_bits and ratio exclude each other; give one, or none")
    if step is not None:
        if not (isfinite(step) and step >= SMALLEST_STEP):
            raise CodecError(f"step={step}: a quantization step is finite and at least 2**-126")
        return archive_plan.with_step(arrays, archive_plan.measured(arrays), step, single=single)
    if grid_bits is not None:
        if grid_bits not in range(MIN_BITS, MAX_BITS + 1):
            raise CodecError(f"grid_bits={grid_bits}: a grid has {MIN_BITS} to {MAX_BITS} bits")
        bits, ranges = operator.index(grid_bits), archive_plan.measured(arrays)
        return archive_plan.with_grid(arrays, ranges, bits, single=single)
    if limit < inf:
        return archive_size.within(arrays, limit, seed, single=single)
    return archive_plan.exactly(arrays, single=single)


# ---- The bytes -------------------------------------------------------------------


def _written(plan: Plan, seed: int | None, threads: int) -> bytes:
    header = plan.to_message().SerializeToString()
    if len(header) > MAX_HEADER_BYTES:
        raise CodecError(f"names and shapes take more than {MAX_HEADER_BYTES} bytes")
    start = MAGIC + bytes((VERSION,)) + len(header).to_bytes(LENGTH_BYTES, "little") + header
    out, checksum = BytesIO(), crc32(start)
    out.write(start)
    for frame in _mapped(archive_size.framing(plan, seed), plan.spans(), threads):
        length = len(frame).to_bytes(LENGTH_BYTES, "little")
        checksum = crc32(frame, crc32(length, checksum))
        out.write(length)
        out.write(frame)
    out.write(checksum.to_bytes(END_BYTES, "little"))
    return out.getvalue()


def _header(view: memoryview) -> tuple[archive_pb2.Archive, int]:
    """Return the header of an archive that is whole, and where its chunks begin."""
    if len(view) < START_BYTES + END_BYTES or view[: len(MAGIC)] != MAGIC:
        raise CodecError("these bytes do not begin as an archive of fedaq.codec does")
    version = view[len(MAGIC)]
    if version != VERSION:
        raise CodecError(f"the archive is of version {version}; this fedaq reads version {VERSION}")
    if crc32(view[:-END_BYTES]) != int.from_bytes(view[-END_BYTES:], "little"):
        raise CodecError("the archive is cut off or damaged: its checksum is another")
    length = int.from_bytes(view[START_BYTES - LENGTH_BYTES : START_BYTES], "little")
    end = START_BYTES + length
    if length > MAX_HEADER_BYTES or end > len(view) - END_BYTES:
        raise CodecError(f"the archive is broken: it cannot have a header of {length} bytes")
    return archive_pb2.Archive.FromString(bytes(view[START_BYTES:end])), end


def _chunks(view: memoryview, at: int, plan: Plan) -> Iterator[Chunk]:
    """Yield the chunks of an archive, each where it should be, and all of them."""
    due = 0
    while at < len(view):
        begin = at + LENGTH_BYTES
        at = begin + int.from_bytes(view[at:begin], "little")
        if at > len(view):
            raise CodecError("the archive is broken: it ends in a chunk")
        chunk = chunks.parse(bytes(view[begin:at]), federation_pb2.ServerMessage)
        if not isinstance(chunk, Chunk) or chunk.offset != due or chunk.size > CHUNK_BYTES:
            raise CodecError(f"the archive is broken: no chunk of byte {due} where it should be")
        yield chunk
        due += chunk.size
    if due != plan.header.code_bytes:
        raise CodecError(f"the archive is broken: {due} of {plan.header.code_bytes} code bytes")


def _decode_into(plan: Plan, chunk: Chunk) -> None:
    for piece, codes in coding.decode(plan.header, chunk):
        array, place = plan.sources[piece.tensor]
        part = slice(piece.first, piece.first + piece.values)
        if place is not None:
            array.byte(place)[part] = codes.packed()
        elif array.layout.dtype == "float32":
            codes.dequantize(array.data[part])
        else:
            floats = np.empty(piece.values, np.float32)
            codes.dequantize(floats)
            array.put(part, floats)


def _mapped(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Yield results in the order of the items, of which only a few more are under way."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        under_way = deque[Future[Result]]()
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
