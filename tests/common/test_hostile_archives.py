"""Bytes that are no archives, or such as no encoder makes: refused in a line, or tensors."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fedaq.codec import CodecError, decode, encode
from fedaq.v1 import archive_pb2
from fedaq.v1 import federation_pb2 as pb
from wire.archives import assembled, in_memory, parsed, resummed

VALUES: dict[str, Any] = {
    "weights": torch.from_numpy(
        ((np.arange(500) * 7919 % 1000 - 500) / 1000).astype(np.float32) ** 5
    ),
    "half": torch.linspace(-1, 1, 21).to(torch.bfloat16),
    "count": np.arange(20) % 3,
    "mask": np.arange(9) > 4,
    "none": np.zeros((0, 2)),
}
ARCHIVES = {
    "a step": encode(VALUES, step=0.02),
    "a grid": encode(VALUES, grid_bits=11, seed=1),
    "exactly": encode(VALUES),
    "alone": encode(np.arange(40, dtype=np.float32)),
}
SIZE = sum(len(in_memory(value)) for value in VALUES.values())
MAX_BYTES = 2**16
# Beside the tensors: of a chunk, of headers, and what Python itself takes.
MOST = MAX_BYTES + 2**20


def taken(data: bytes) -> bool:
    """Decode what may be anything; it is refused, or of a size that was allowed."""
    try:
        back = decode(data, max_bytes=MAX_BYTES)
    except CodecError as error:
        assert "\n" not in str(error)
        return False
    values = back.values() if isinstance(back, dict) else [back]
    assert sum(len(in_memory(value)) for value in values) <= MAX_BYTES
    return True


@pytest.fixture
def little_memory() -> Iterator[None]:
    decode(ARCHIVES["a step"])
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.usefixtures("little_memory")
def test_every_truncation_is_refused(name: str) -> None:
    data = ARCHIVES[name]
    assert taken(data)
    assert not any(taken(data[:end]) for end in range(len(data)))
    assert not taken(data + b"\0")


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.usefixtures("little_memory")
def test_every_changed_byte_is_refused(name: str) -> None:
    data = ARCHIVES[name]
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            assert not taken(data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :])


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.usefixtures("little_memory")
def test_no_changed_byte_with_a_right_checksum_crashes_it(name: str) -> None:
    """A forger sums anew; what is refused is a matter of luck, but nothing else may happen."""
    data, accepted = ARCHIVES[name], 0
    for at in range(len(data) - 4):
        for mask in (0x01, 0x80):
            changed = resummed(data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :])
            accepted += taken(changed)
        assert not taken(resummed(data[:at] + bytes(4)))
    assert accepted


# ---- Forged headers ------------------------------------------------------------------------

STEP = pb.TensorHeader(codec=pb.CODEC_STEP, bits=4, step=0.5, zero=8)
BYTE = pb.TensorHeader(codec=pb.CODEC_STEP, bits=8, step=1)
ZERO = pb.TensorHeader(codec=pb.CODEC_ZERO)
CODES = pb.Chunk(data=bytes(4))


def tensor(shape: tuple[int, ...] = (8,), dtype: str = "float32", **more: Any) -> Any:
    return archive_pb2.ArchivedTensor(**{"name": "a", "shape": shape, "dtype": dtype, **more})


def header(
    *tensors: archive_pb2.ArchivedTensor,
    codes: tuple[pb.TensorHeader, ...] = (STEP,),
    code_bytes: int = 4,
    single: bool = False,
) -> archive_pb2.Archive:
    payload = pb.PayloadHeader(code_bytes=code_bytes, tensors=codes)
    return archive_pb2.Archive(single=single, tensors=tensors, payload=payload)


def test_a_forged_archive_that_is_right_is_taken() -> None:
    back = decode(assembled(header(tensor()), [CODES]))
    assert back["a"].tolist() == [-4.0] * 8


BIG = 2**31
FORGED = {
    "another version": (assembled(header(tensor()), [CODES], version=2), "of version 2"),
    "a bomb": (assembled(header(tensor((BIG, 4)), codes=(ZERO,), code_bytes=0)), "has more than"),
    "a bomb of many": (
        assembled(header(*(tensor((BIG,), name=str(n)) for n in range(9)), codes=(ZERO,) * 9,
                         code_bytes=0)),
        "take 77309411328 bytes, more than max_bytes=65536",
    ),
    "a dimension of 0 and one that is huge": (
        assembled(header(tensor((0, 2**62)), codes=(ZERO,), code_bytes=0)), "has more than",
    ),
    "65 dimensions": (assembled(header(tensor((1,) * 65), codes=(ZERO,))), "dimensions"),
    "100,001 tensors": (assembled(archive_pb2.Archive(tensors=[tensor()] * 100_001)), "100000"),
    "too many planes": (
        assembled(archive_pb2.Archive(
            tensors=[tensor((0,), "int64", name=str(n), exact=True) for n in range(20_000)])),
        "at most 100000 tensors",
    ),
    "an object": (assembled(header(tensor(dtype="object"))), "its type 'object' is none of"),
    "bfloat16 of numpy": (assembled(header(tensor(dtype="bfloat16"))), "none of"),
    "quantized integers": (assembled(header(tensor(dtype="int8")), [CODES]), "never quantized"),
    "exact, in other codes": (
        assembled(header(tensor((4,), "uint8", exact=True), codes=(STEP,), code_bytes=2)),
        "not in codes of 8 bits",
    ),
    "truth that is neither": (
        assembled(header(tensor((4,), "bool", exact=True), codes=(BYTE,)),
                  [pb.Chunk(data=b"\0\1\2\1")]),
        "neither true nor false",
    ),
    "a name twice": (
        assembled(header(tensor(), tensor(), codes=(STEP, STEP), code_bytes=8)), "not told apart",
    ),
    "no name": (assembled(header(tensor(name=""))), "names of its tensors"),
    "one of two": (
        assembled(header(tensor(name=""), tensor(), codes=(STEP,) * 2, single=True)), "one tensor",
    ),
    "one of none": (assembled(header(codes=(), code_bytes=0, single=True)), "one tensor"),
    "one with a name": (assembled(header(tensor(), single=True), [CODES]), "one tensor"),
    "no codes of a tensor": (assembled(header(tensor(), codes=())), "0 tensors, the model 1"),
    "another number of code bytes": (
        assembled(header(tensor(), code_bytes=5), [CODES]), "announces 5 code bytes",
    ),
    "a step of nothing": (
        assembled(header(tensor(), codes=(pb.TensorHeader(codec=pb.CODEC_STEP, bits=4),)), [CODES]),
        "a quantization step of 0",
    ),
    "no chunks": (assembled(header(tensor())), "0 of 4 code bytes"),
    "a chunk twice": (assembled(header(tensor()), [CODES, CODES]), "no chunk of byte 4"),
    "a chunk too long": (
        assembled(header(tensor()), [pb.Chunk(data=bytes(5))]), "does not fit a payload",
    ),
    "a chunk for more than a chunk": (
        assembled(header(tensor()), [pb.Chunk(data=bytes(4), code_bytes=2**18 + 1)]), "no chunk",
    ),
    "a broken block": (
        assembled(header(tensor()), [pb.Chunk(data=b"\4no", code_bytes=4, coded_bytes=[3])]),
        "the archive is broken: tensor a: coded block: kind 4",
    ),
    "NaN that was not coded": (
        assembled(header(tensor((1,)), codes=(pb.TensorHeader(codec=pb.CODEC_RAW, bits=32),)),
                  [pb.Chunk(data=b"\0\0\xc0\x7f")]),
        "NaN or infinite",
    ),
    "no message": (resummed(ARCHIVES["alone"][:9] + b"\xff" * 60), "cannot have a header|broken"),
    "a header longer than the bytes": (
        resummed(ARCHIVES["alone"][:5] + b"\xff\xff\xff\x7f" + bytes(60)), "cannot have a header",
    ),
    "nothing": (b"", "do not begin as"),
    "a pickle": (b"\x80\x04\x95" + bytes(40), "do not begin as"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_forged_archives_are_refused_in_a_line(name: str) -> None:
    data, said = FORGED[name]
    tracemalloc.start()
    with pytest.raises(CodecError, match=said) as told:
        decode(data, max_bytes=MAX_BYTES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(told.value)
    # What is known of a tensor is larger than it was in the header.
    assert peak < MOST + 60 * len(data)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\u202e", "long" * 100_000])
def test_no_name_steers_whoever_reads_the_error(name: str) -> None:
    for forged in (
        header(tensor(name=name, dtype="int8")),
        header(tensor(name=name, dtype=name)),
        header(tensor(name=name, exact=True), codes=(STEP,) * 4, code_bytes=16),
        header(tensor(name=name), codes=(pb.TensorHeader(codec=pb.CODEC_STEP, bits=4),)),
    ):
        with pytest.raises(CodecError) as told:
            decode(assembled(forged, [CODES]))
        assert str(told.value).isprintable()
        assert len(str(told.value)) < 600


def test_what_decoding_may_take_is_exact() -> None:
    data = ARCHIVES["a step"]
    assert decode(data, max_bytes=SIZE).keys() == VALUES.keys()
    with pytest.raises(CodecError, match=f"take {SIZE} bytes, more than max_bytes={SIZE - 1}"):
        decode(data, max_bytes=SIZE - 1)


def test_a_failure_in_a_thread_is_the_same_failure() -> None:
    parts = parsed(encode(np.random.default_rng(1).normal(size=900_000), step=0.05))
    for chunk in parts.chunks:
        chunk.data = b"\7" + chunk.data[1:]
    with pytest.raises(CodecError, match="coded block: kind 7"):
        decode(assembled(parts.header, parts.chunks), threads=3)


def test_any_bytes_like_object_is_decoded() -> None:
    data = ARCHIVES["alone"]
    for kind in (bytearray(data), memoryview(data), memoryview(data).cast("b")):
        assert decode(kind).tolist() == list(range(40))
