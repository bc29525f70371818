"""Known answers of whole payloads: captured files, and the values that they stand for.

They pin what every release must decode. Written anew only to add one:

    PYTHONPATH=tests python -m wire.coded_vectors

The files hold zstd's frames, whose bytes may differ from one version of it to the next; what they
stand for may not.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import coding, model, payload
from fedaq.codec.chunks import Chunk
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import RAW, ZERO, Payload, TensorCode
from fedaq.codec.quantizer import Floats, Range
from fedaq.v1 import federation_pb2 as pb
from wire import oracle

FILE = Path(__file__).with_suffix(".json")
ROUND, BASE = 7, bytes(range(1, 9))
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


def model_of(tensors: Tensors) -> tuple[Payload, Floats]:
    """Return the header of a payload of these tensors, and values for it."""
    shapes = [TensorSpec(f"tensor.{n}", shape) for n, (_, shape) in enumerate(tensors)]
    header = Payload(ModelSpec(tuple(shapes)), tuple(code for code, _ in tensors))
    parts = [
        values_of(code, count, n)
        for n, (code, count) in enumerate(zip(header.codes, header.spec.elements, strict=True))
    ]
    return header, np.concatenate(parts)


def sent(header: Payload, flat: Floats, chunk_bytes: int, *, squeeze: bool) -> list[Chunk]:
    """Return the chunks that a sender makes."""
    keys = payload.transfer_keys(header.spec, 1, "vector")
    values_at: Callable[[slice], Floats] = flat.__getitem__
    return [
        coding.encode(header, values_at, keys, at, length, ROUND, squeeze=squeeze)[0]
        for at, length in header.chunks(chunk_bytes)
    ]


def vector(
    name: str, header: Payload, chunks: Sequence[Chunk], *, base: bytes = b"", old: bool = False
) -> dict[str, Any]:
    """Return a captured file, the values that it stands for, and the digest of those."""
    flat = np.zeros(header.spec.parameters, np.float32)
    for chunk in chunks:
        coding.decode_into(header, chunk, flat)
    captured = pb.CapturedPayload(
        model=model.to_message(header.spec),
        header=payload.to_message(header, ROUND, base),
        sender="kitchen",
        codes=b"".join(bytes(chunk.data) for chunk in chunks) if old else b"",
        chunks=() if old else [chunk.to_message() for chunk in chunks],
    )
    return {
        "name": name,
        "file": captured.SerializeToString().hex(),
        "values": flat.astype(">f4").tobytes().hex(),
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


def vectors() -> list[dict[str, Any]]:
    """Return every vector."""
    every, its_values = model_of(EVERY_CODEC)
    mixed, its_own = model_of(AS_SENT)
    packed = sent(every, its_values, 64, squeeze=False)
    coded = sent(mixed, its_own, 1300, squeeze=True)
    return [
        vector("every codec and width, packed", every, packed),
        vector("the same in a file from before chunks were kept", every, packed, old=True),
        vector("entropy-coded as it is sent", mixed, coded, base=BASE),
        nested(),
    ]


if __name__ == "__main__":
    lines = ",\n".join(f" {json.dumps(one)}" for one in vectors())
    FILE.write_text(f"[\n{lines}\n]\n")
