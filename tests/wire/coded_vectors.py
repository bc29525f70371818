"""Known answers of whole payloads: captured files, and the values that they stand for.

They pin what every release must decode. Written anew only to add one:

    PYTHONPATH=tests python -m wire.coded_vectors

The files hold zstd's frames, whose bytes may differ from one version of it to the next; what they
stand for may not.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import coding, holding, model, payload
from fedaq.codec.chunks import Chunk
from fedaq.codec.given import Dither, Given, Past
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import RAW, ZERO, Payload, TensorCode
from fedaq.codec.quantizer import Floats, Key, Range
from fedaq.v1 import federation_pb2 as pb
from wire import oracle, oracle_classes

FILE = Path(__file__).with_suffix(".json")
ROUND, BASE = 7, bytes(range(1, 9))
SEED, SENDER = 3, "kitchen"
Tensors = Sequence[tuple[TensorCode, tuple[int, ...]]]


def cubed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the third power, rounded alike on every machine."""
    return values * values * values


def values_of(code: TensorCode, count: int, number: int) -> Floats:
    """Return values that are mostly near the least that a tensor can hold."""
    index = np.arange(count, dtype=np.int64)
    shape = cubed(cubed(cubed((index * 7919 + number * 104_729) % 1000 / 500 - 1)))
    if code.grid is None:
        return shape.astype(np.float32)
    lo, hi = code.grid.lo, code.grid.hi
    return (lo + np.abs(shape) * (hi - lo)).astype(np.float32)


def around_zero(code: TensorCode, count: int, number: int) -> Floats:
    """Return values that are mostly near 0, some as far off as a tensor can hold."""
    if not code.step:
        return values_of(code, count, number)
    index = np.arange(count, dtype=np.int64)
    shape = cubed(cubed(cubed((index * 7919 + number * 104_729) % 1000 / 500 - 1)))
    up, down = (2**code.bits - 1 - code.zero) * code.step, code.zero * code.step
    return np.where(shape > 0, shape * up, shape * down).astype(np.float32)


def model_of(
    tensors: Tensors, values: Callable[[TensorCode, int, int], Floats] = values_of
) -> tuple[Payload, Floats]:
    """Return the header of a payload of these tensors, and values for it."""
    shapes = [TensorSpec(f"tensor.{n}", shape) for n, (_, shape) in enumerate(tensors)]
    header = Payload(ModelSpec(tuple(shapes)), tuple(code for code, _ in tensors))
    parts = [
        values(code, count, n)
        for n, (code, count) in enumerate(zip(header.codes, header.spec.elements, strict=True))
    ]
    return header, np.concatenate(parts)


def sent(
    header: Payload,
    flat: Floats,
    chunk_bytes: int,
    *,
    squeeze: bool,
    keys: Sequence[Key] = (),
    past: Past | None = None,
) -> list[Chunk]:
    """Return the chunks that a sender makes: of an update with these keys, of a difference."""
    known: Given | None = Dither(keys.__getitem__) if keys else past
    streams = tuple(keys) or payload.transfer_keys(header.spec, 1, "vector")
    values_at: Callable[[slice], Floats] = flat.__getitem__
    found = []
    for at, length in header.chunks(chunk_bytes):
        chunk, content = coding.encode(
            header, values_at, streams, at, length, ROUND,
            squeeze=squeeze, nearest=past is not None, known=known,
        )  # fmt: skip
        if past is not None:
            places = [header.place(piece) for piece, _ in content]
            chunk = replace(chunk, past=past.packed(slice(places[0].start, places[-1].stop)))
        found.append(chunk)
    return found


def vector(
    name: str,
    header: Payload,
    chunks: Sequence[Chunk],
    *,
    base: bytes = b"",
    keys: Sequence[Key] = (),
    old: bool = False,
    long: bool = False,
) -> dict[str, Any]:
    """Return a captured file, the values that it stands for, and the digest of those.

    Of a long one, only the digest tells the values.
    """
    flat = np.zeros(header.spec.parameters, np.float32)
    past = Past.none(flat.size)
    for chunk in chunks:
        holding.take_past(header, chunk, past)
        known = Dither(keys.__getitem__) if keys else past
        coding.decode_into(header, chunk, flat, known=known)
    captured = pb.CapturedPayload(
        model=model.to_message(header.spec),
        header=payload.to_message(header, ROUND, base),
        sender=SENDER,
        codes=b"".join(bytes(chunk.data) for chunk in chunks) if old else b"",
        chunks=() if old else [chunk.to_message() for chunk in chunks],
        keys=[key.word0 + (key.word1 << 32) for key in keys],
    )
    values = {} if long else {"values": flat.astype(">f4").tobytes().hex()}
    return {
        "name": name,
        "file": captured.SerializeToString().hex(),
        **values,
        "digest": model.digest(flat).hex(),
    }


HUNDREDTH, TWENTIETH, FIFTIETH = map(oracle.binary32, (0.01, 0.05, 0.02))
EVERY_CODEC: Tensors = [
    *((TensorCode(bits, Range(-0.75, 0.5)), (3, 7)) for bits in range(1, 17)),
    *((TensorCode(bits, step=HUNDREDTH, zero=2**bits // 3), (19,)) for bits in range(1, 17)),
    (ZERO, (2, 5)),
    (RAW, (11,)),
    (TensorCode(4, Range(0.25, 0.25)), ()),
    (TensorCode(3, Range(-1.0, 1.0)), (0, 4)),
    (TensorCode(2, Range(-1.0, -0.0)), (9,)),
]
AS_SENT: Tensors = [
    (TensorCode(4, step=TWENTIETH, zero=8), (30, 40)),
    (ZERO, (3,)),
    (TensorCode(1, step=FIFTIETH), (1200,)),
    (TensorCode(8, Range(-1.0, 1.0)), (600,)),
    (RAW, (3,)),
    *((TensorCode(bits, Range(-0.375, 0.7109375)), (150 + bits,)) for bits in range(9, 17)),
]
# What is mostly 0 is coded by classes; the others stand between.
MOSTLY_ZERO: Tensors = [
    *((TensorCode(b, step=TWENTIETH, zero=2**b // 3), (29, 10 + b)) for b in range(1, 9)),
    (ZERO, (70,)),
    (TensorCode(4, step=HUNDREDTH, zero=7), (60, 110)),
    (TensorCode(8, step=FIFTIETH, zero=128), (1201,)),
    (TensorCode(3, step=FIFTIETH, zero=7), ()),
    (TensorCode(3, step=FIFTIETH), (0, 4)),
    (TensorCode(2, step=FIFTIETH, zero=3), (400,)),
    (RAW, (5,)),
    (TensorCode(5, Range(-0.5, 0.0)), (300,)),
    (TensorCode(11, step=FIFTIETH / 8, zero=900), (150,)),
    (ZERO, (6,)),
    (TensorCode(1, step=FIFTIETH, zero=1), (9,)),
    (TensorCode(4, step=FIFTIETH, zero=5), (64,)),
]


def past_of(parameters: int) -> Past:
    """Return a past of all numbers that there are, most of them 0."""
    index = np.arange(parameters, dtype=np.int64)
    return Past(np.where(index // 7 % 5 < 2, index * index % 15, 0).astype(np.uint8))


def split(block: bytes, depth: int) -> bytes:
    """Split off the most frequent byte, and that of the flags, and so on."""
    if depth == 0 or not block:
        return oracle.unsplit_block(0, block)
    return oracle.split_block(block, split=lambda part: split(part, depth - 1))


def nested() -> dict[str, Any]:
    """Return a payload whose blocks no sender of ours would make, and every receiver must read."""
    tensors = [(TensorCode(8, step=0.5, zero=100), (n,)) for n in (203, 64, 64, 57, 300)]
    tensors.append((TensorCode(13, step=2.0**-9, zero=4000), (77,)))
    header, _ = model_of(tensors)
    codes = [bytes(99 + i * i % 97 % 3 for i in range(n)) for n in header.spec.elements]
    blocks = [
        oracle.split_block(codes[0], split=lambda part: split(part, 5)),
        oracle.unsplit_block(0, codes[1]),
        b"",
        oracle.unsplit_block(1, codes[3]),
        oracle.unsplit_block(2, bytes(300)),
        oracle.split_block(codes[5], split=lambda part: oracle.unsplit_block(0, part))
        + oracle.pack([i * 5 % 32 for i in range(77)], 5),
    ]
    data = b"".join(block or code for block, code in zip(blocks, codes, strict=True))
    lengths = tuple(len(block) for block in blocks)
    chunk = Chunk(ROUND, 0, data, header.code_bytes, lengths)
    return vector("every kind of block, split six deep", header, [chunk], base=BASE)


def by_classes() -> dict[str, Any]:
    """Return an update whose blocks of kind 4 no sender of ours would make.

    They are of codes that are seldom 0 or all as far off as can be, longer than they need to be,
    and of empty content.
    """
    codes: list[tuple[TensorCode, list[int]]] = [
        (TensorCode(8, step=0.5, zero=0), [255] * 40),
        (TensorCode(8, step=0.5, zero=255), [0] * 40),
        (TensorCode(8, step=0.5, zero=128), [255 * (i % 2) for i in range(40)]),
        (TensorCode(6, step=0.5, zero=20), [i * i * 5 % 64 for i in range(300)]),
        (TensorCode(1, step=0.5, zero=1), [1] * 8),
        (TensorCode(7, step=0.5, zero=3), [i * i % 11 // 3 for i in range(200)]),
    ]
    header, _ = model_of([(code, (len(each),)) for code, each in codes])
    keys = payload.transfer_keys(header.spec, SEED, "uplink", SENDER, ROUND)
    blocks = []
    for number, (code, each) in enumerate(codes):
        words = oracle_classes.words_of(SEED, SENDER, ROUND, number)
        classes = [oracle_classes.dither_class(i, code.bits, *words) for i in range(len(each))]
        blocks.append(b"\4" + oracle_classes.encode(each, classes, code.zero))
    blocks[-1] += bytes(2)
    lengths = tuple(len(block) for block in blocks)
    chunk = Chunk(ROUND, 0, b"".join(blocks), header.code_bytes, lengths)
    return vector("codes by classes that are no use", header, [chunk], keys=keys)


def halved() -> dict[str, Any]:
    """Return a difference with more answers in a block than are counted in full."""
    header, flat = model_of([(TensorCode(2, step=FIFTIETH, zero=1), (80_000,))])
    flat[:] = 0
    flat[::301] = FIFTIETH
    flat[66_000::5] = -FIFTIETH
    chunks = sent(header, flat, 2**20, squeeze=True, past=Past.none(flat.size))
    return vector("80,000 codes of one class", header, chunks, base=BASE, long=True)


def vectors() -> list[dict[str, Any]]:
    """Return every vector."""
    update, its_own_values = model_of(MOSTLY_ZERO, around_zero)
    keys = payload.transfer_keys(update.spec, SEED, "uplink", SENDER, ROUND)
    past = past_of(update.spec.parameters)
    known_update = sent(update, its_own_values, 3000, squeeze=True, keys=keys)
    known_difference = sent(update, its_own_values, 3000, squeeze=True, past=past)
    whole, its_weights = model_of([(RAW, (90,)), (RAW, (31,))])
    with_past = sent(whole, its_weights, 200, squeeze=False, past=past_of(121))
    every, its_values = model_of(EVERY_CODEC)
    mixed, its_own = model_of(AS_SENT)
    packed = sent(every, its_values, 64, squeeze=False)
    coded = sent(mixed, its_own, 1300, squeeze=True)
    return [
        vector("every codec and width, packed", every, packed),
        vector("the same in a file from before chunks were kept", every, packed, old=True),
        vector("entropy-coded as it is sent", mixed, coded, base=BASE),
        nested(),
        vector("an update by classes", update, known_update, keys=keys),
        vector("a difference by classes", update, known_difference, base=BASE, long=True),
        vector("a whole model with its past", whole, with_past),
        by_classes(),
        halved(),
    ]


if __name__ == "__main__":
    lines = ",\n".join(f" {json.dumps(one)}" for one in vectors())
    FILE.write_text(f"[\n{lines}\n]\n")
