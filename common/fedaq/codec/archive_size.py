"""How long an archive will be, and which quantization step makes it short enough."""

import operator
from collections.abc import Callable, Iterator
from math import ceil, log2

import numpy as np

from fedaq.codec import coding, payload
from fedaq.codec.archive_plan import Plan, byte_codes, exactly, measured, with_step
from fedaq.codec.arrays import Array
from fedaq.codec.kernels import GROUP
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import ZERO, Payload, TensorCode
from fedaq.codec.quantizer import SMALLEST_STEP
from fedaq.errors import CodecError
from fedaq.v1 import federation_pb2 as pb

# Before and behind the chunks: magic, version and length of the header; checksum.
START_BYTES, END_BYTES = 9, 4
# Before each chunk: its length.
LENGTH_BYTES = 4
# What a chunk takes beyond its data, lengths of its tensors included.
_CHUNK_BYTES = 28
# Up to so many numbers, an archive is made to know its length. Of more, about so many are coded,
# of every tensor in so many runs, each a multiple of the groups of a chunk.
_SAMPLE = 2**22
_RUNS, _LEAST_RUN = 16, 2**12
# The finest step that a ratio can mean, with which the tensor of the greatest magnitude still has
# codes; the coarsest, both next to that magnitude; and how exactly it is found. In powers of two.
_FINEST, _COARSEST, _PRECISION = -14.9, 20.0, 2.0**-7
_LEAST_COARSENING = 1.003


def estimated(plan: Plan, seed: int | None) -> float:
    """Return the bytes of an archive, from a sample of its values if it is large."""
    fixed = START_BYTES + END_BYTES + plan.to_message().ByteSize()
    numbers = sum(plan.header.spec.elements)
    if numbers <= _SAMPLE:
        return fixed + sum(LENGTH_BYTES + len(frame) for frame in frames(plan, seed))
    chunks = sum(1 for _ in plan.spans())
    coded = sum(
        _sampled(source, code, min(1.0, _SAMPLE / numbers), seed)
        for source, code in zip(plan.sources, plan.codes, strict=True)
    )
    return fixed + chunks * (LENGTH_BYTES + _CHUNK_BYTES) + coded


def frames(plan: Plan, seed: int | None) -> Iterator[bytes]:
    """Yield the chunks of an archive, one after another."""
    frame = framing(plan, seed)
    return (frame(span) for span in plan.spans())


def framing(plan: Plan, seed: int | None) -> Callable[[tuple[int, int]], bytes]:
    """Return what makes a chunk of an archive from its offset and length.

    Values are rounded at random, or without a seed to the nearest.
    """
    keys = payload.transfer_keys(plan.header.spec, operator.index(seed or 0), "archive")

    def frame(span: tuple[int, int]) -> bytes:
        return plan.chunk(*span, keys, nearest=seed is None).frame(pb.ServerMessage)

    return frame


def _sampled(
    source: tuple[Array, int | None], code: TensorCode, share: float, seed: int | None
) -> float:
    """Return about how many bytes the codes of one tensor take."""
    array, place = source
    numbers = array.layout.numbers
    if code == ZERO or not numbers:
        return 0
    parts = _parts(numbers, share)
    if place is not None:
        codes = byte_codes(np.concatenate([array.byte(place)[part] for part in parts]))
        spec = ModelSpec((TensorSpec("", (codes.values,)),))
        header = Payload(spec, (code,))
        [piece] = header.pieces(0, header.code_bytes)
        chunk = coding.to_chunk([(piece, codes)], 0, header.code_bytes, 0)
        return len(chunk.data) * numbers / codes.values
    values = np.concatenate([array.floats(part) for part in parts])
    header = Payload(ModelSpec((TensorSpec("", (len(values),)),)), (code,))
    keys = payload.transfer_keys(header.spec, seed or 0, "archive")
    chunk, _ = coding.encode(
        header, values.__getitem__, keys, 0, header.code_bytes, 0,
        squeeze=True, nearest=seed is None,
    )  # fmt: skip
    return len(chunk.data) * numbers / len(values)


def _parts(numbers: int, share: float) -> list[slice]:
    """Return runs of a tensor, evenly spread, that are a share of it; all of it if it is small."""
    length = ceil(max(share * numbers / _RUNS, _LEAST_RUN) / GROUP) * GROUP
    if length * _RUNS >= numbers:
        return [slice(0, numbers)]
    firsts = np.linspace(0, numbers - length, _RUNS).astype(np.int64).tolist()
    return [slice(first, first + length) for first in firsts]


def within(arrays: tuple[Array, ...], limit: float, seed: int | None, *, single: bool) -> Plan:
    """Return the plan that loses least and is estimated to keep a limit of bytes.

    Raises
    ------
    CodecError
        If none does, or values cannot be quantized as they should.
    """
    exact = exactly(arrays, single=single)
    if estimated(exact, seed) <= limit:
        return exact
    return _quantized_within(arrays, limit, seed, single=single)


def _quantized_within(
    arrays: tuple[Array, ...], limit: float, seed: int | None, *, single: bool
) -> Plan:
    ranges = measured(arrays)
    greatest = max((max(-r.lo, r.hi) for r in ranges if r is not None), default=0.0)
    finest, coarsest = (
        max(log2(greatest or 1) + reach, log2(SMALLEST_STEP)) for reach in (_FINEST, _COARSEST)
    )
    plan = with_step(arrays, ranges, 2.0**coarsest, single=single)
    least = estimated(plan, seed)
    if least > limit:
        raise CodecError(
            f"the ratio leaves {limit:.0f} bytes; names, shapes and what travels exactly take "
            f"{least:.0f}"
        )
    while coarsest - finest > _PRECISION:
        middle = (finest + coarsest) / 2
        tried = with_step(arrays, ranges, 2.0**middle, single=single)
        if estimated(tried, seed) > limit:
            finest = middle
        else:
            coarsest, plan = middle, tried
    return plan


def coarser(plan: Plan, length: int, limit: float, seed: int | None) -> Plan:
    """Return the plan to try after one whose archive has `length` bytes, more than the limit."""
    step = max((code.step for code in plan.codes[: plan.exact.count(False)]), default=0.0)
    if not step:
        return _quantized_within(plan.arrays, limit, seed, single=plan.single)
    bits = 8 * length / sum(plan.header.spec.elements)
    # A step of twice the width saves a bit a value, or about half of what takes less than two.
    factor = 2.0 ** min(max(bits, 1.0) * (length / limit - 1), 1.0)
    step *= max(_LEAST_COARSENING, factor)
    return with_step(plan.arrays, measured(plan.arrays), step, single=plan.single)
