"""Archives read a second time, from docs/reference/codec.md and not from the product's code."""

import struct
from dataclasses import dataclass
from math import prod
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from fedaq.v1 import archive_pb2
from fedaq.v1 import federation_pb2 as pb
from wire import oracle

BYTES_OF = {
    "bool": 1, "int8": 1, "uint8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "uint32": 4, "float32": 4, "complex64": 4,
    "int64": 8, "uint64": 8, "float64": 8, "complex128": 8,
}  # fmt: skip


@dataclass
class Parsed:
    """An archive, cut in its parts."""

    version: int
    header: archive_pb2.Archive
    chunks: list[pb.Chunk]

    @property
    def captured(self) -> pb.CapturedPayload:
        """The payload of the archive as a file of its own, which other decoders read."""
        shapes = [(numbers(t),) for t in self.header.tensors if not t.exact]
        for tensor in self.header.tensors:
            shapes += [(numbers(tensor),)] * (BYTES_OF[tensor.dtype] if tensor.exact else 0)
        model = pb.ModelSignature(
            tensors=[
                pb.TensorSpec(name=str(n), shape=shape, dtype=pb.DATA_TYPE_FLOAT32)
                for n, shape in enumerate(shapes)
            ]
        )
        return pb.CapturedPayload(model=model, header=self.header.payload, chunks=self.chunks)

    def numbers_of(self, values: list[float]) -> list[NDArray[Any]]:
        """Return what each tensor's numbers are: float32 if they are coded, else their bytes."""
        flat, at, found = np.array(values, np.float32), 0, {}
        for exact in (False, True):
            for tensor in self.header.tensors:
                if tensor.exact is not exact:
                    continue
                count, rows = numbers(tensor), BYTES_OF[tensor.dtype] if exact else 1
                part = flat[at : at + rows * count].reshape(rows, count)
                at += rows * count
                found[tensor.name] = part.T.astype(np.uint8).reshape(-1) if exact else part[0]
        assert at == len(flat)
        return [found[tensor.name] for tensor in self.header.tensors]


def numbers(tensor: archive_pb2.ArchivedTensor) -> int:
    return prod(tensor.shape) * (2 if tensor.dtype.startswith("complex") else 1)


def parsed(archive: bytes) -> Parsed:
    """Cut an archive in its parts, and check what surrounds them."""
    assert archive[:4] == bytes.fromhex("fa464151")
    assert crc32(archive[:-4]) == struct.unpack("<I", archive[-4:])[0]
    version, length = struct.unpack_from("<BI", archive, 4)
    header = archive_pb2.Archive.FromString(archive[9 : 9 + length])
    at, chunks = 9 + length, []
    while at < len(archive) - 4:
        (length,) = struct.unpack_from("<I", archive, at)
        message = pb.ServerMessage.FromString(archive[at + 4 : at + 4 + length])
        assert message.WhichOneof("kind") == "chunk"
        chunks.append(message.chunk)
        at += 4 + length
    assert at == len(archive) - 4
    return Parsed(version, header, chunks)


def rebuilt(archive: bytes) -> tuple[Parsed, list[tuple[str, bytes]]]:
    """Return an archive's parts, and name and bytes in memory of each of its tensors."""
    parts = parsed(archive)
    values = oracle.captured_values(parts.captured, oracle.Seen())
    pairs = zip(parts.header.tensors, parts.numbers_of(values), strict=True)
    return parts, [
        (tensor.name, found.tobytes() if tensor.exact else _in_type(tensor.dtype, found))
        for tensor, found in pairs
    ]


def _in_type(dtype: str, found: NDArray[np.float32]) -> bytes:
    real = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
    if not len(found):
        return b""
    return (
        torch.from_numpy(found.copy()).to(getattr(torch, real)).view(torch.uint8).numpy().tobytes()
    )


def in_memory(value: Any) -> bytes:
    """Return the bytes of an array or a tensor, in row-major order."""
    if not isinstance(value, torch.Tensor):
        found: bytes = value.tobytes()
        return found
    if not value.numel():
        return b""
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def resummed(archive: bytes) -> bytes:
    """Return an archive with the checksum that belongs to what it has become."""
    return archive[:-4] + struct.pack("<I", crc32(archive[:-4]))


def assembled(
    header: archive_pb2.Archive, chunks: list[pb.Chunk] | tuple[()] = (), version: int = 1
) -> bytes:
    """Return an archive of any header and chunks, with the checksum that belongs to them."""
    first = header.SerializeToString()
    parts = [bytes.fromhex("fa464151"), struct.pack("<BI", version, len(first)), first]
    for chunk in chunks:
        message = pb.ServerMessage(chunk=chunk).SerializeToString()
        parts += [struct.pack("<I", len(message)), message]
    return resummed(b"".join(parts) + bytes(4))
