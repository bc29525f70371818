"""What decodes bytes from a peer or a file: each as a function of bytes that anyone may send.

An input of `server`, `client` and `archive` is several messages, each behind its length in two
bytes. A target returns how many messages it decoded, and lets nothing out but what a peer is meant
to be told; whatever else is raised is a finding.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from google.protobuf.message import DecodeError, Message

from fedaq.cli.inspection import show
from fedaq.codec import (
    CodecError,
    archive,
    chunks,
    coding,
    decode,
    encode,
    entropy,
    given,
    headers,
    holding,
    model,
    payload,
)
from fedaq.codec.given import Dither, Given, Past
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Range
from fedaq.errors import ProtocolError, UserError
from fedaq.process.terminal import console
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.rounds.aggregation import Aggregate, Contribution

# Of every kind: a matrix, a tensor of less than a group, a scalar, an empty one.
SPEC = ModelSpec(
    (
        TensorSpec("a", (30, 41)),
        TensorSpec("b", (5,)),
        TensorSpec("c", ()),
        TensorSpec("d", (0, 3)),
    ),
    ("cat", "dog"),
)
CHUNK_BYTES = 1024
# By what the updates of a client were rounded, and classes, turned or not.
ROUNDED = Dither(payload.transfer_keys(SPEC, 1, "uplink", "c", 1).__getitem__)
KNOWN_CLASSES = np.array([0, 1, 17, 34, 63, 128, 146, 191], np.uint8)
ARCHIVE_BYTES = 2**20


@dataclass(frozen=True)
class Target:
    """A decoder, valid inputs to begin with, and what they are made of.

    Attributes
    ----------
    message : type, optional
        Of the messages in an input.
    framed : bool
        Whether an input is several of them.
    """

    decode: Callable[[bytes], int]
    seeds: Callable[[], list[bytes]]
    message: type[Message] | None = None
    framed: bool = False


def framed(messages: list[bytes]) -> bytes:
    """Put messages behind their lengths."""
    return b"".join(len(m).to_bytes(2, "little") + m for m in messages if len(m) < 2**16)


def unframed(data: bytes) -> Iterator[bytes]:
    """Yield the messages of an input; the last may be cut off."""
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "little")
        yield data[at + 2 : end]
        at = end


@cache
def _spool() -> Path:
    return Path(tempfile.mkdtemp(prefix="fedaq-fuzz-"))


@cache
def _total() -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.zeros(SPEC.parameters, np.int64)


def server(data: bytes) -> int:
    """Take messages as the server does: reports, headers, and chunks into the sum.

    Whatever comes, taking the update out again leaves the sum as it was.
    """
    aggregate = Aggregate(SPEC, 1000, _spool(), _total())
    contribution, decoded = None, 0
    try:
        for frame in unframed(data):
            message = chunks.parse(frame, pb.ClientMessage)
            decoded += 1
            if isinstance(message, chunks.Chunk):
                if contribution is not None and _fits(message):
                    contribution.add(message)
            elif message.HasField("join"):
                with suppress(ValueError):
                    SPEC.difference(model.from_message(message.join.model))
            elif message.HasField("range_report"):
                for tensor in message.range_report.ranges:
                    headers.reported_spread("a", tensor).clipped(4)
            elif message.HasField("update") and contribution is None:
                header = headers.from_message(SPEC, message.update)
                contribution = Contribution(aggregate, header, 10, "c", ROUNDED)
    except (DecodeError, ProtocolError):
        decoded += 1
    finally:
        if contribution is not None:
            contribution.undo()
    assert not _total().any(), "something of an undone update is left in the sum"
    return decoded


def _fits(chunk: chunks.Chunk) -> bool:
    return max(len(chunk.data), chunk.code_bytes) <= CHUNK_BYTES


def client(data: bytes) -> int:
    """Take messages as a client does: models and differences into the array it holds."""
    held, header, decoded = np.zeros(SPEC.parameters, np.float32), None, 0
    past, add = Past.none(SPEC.parameters), False
    try:
        for frame in unframed(data):
            message = chunks.parse(frame, pb.ServerMessage)
            decoded += 1
            if isinstance(message, chunks.Chunk):
                if header is not None and add:
                    content = coding.decode(header, message, past)
                    holding.add_difference(header, content, held, past)
                elif header is not None:
                    holding.decode_whole(header, message, held, past)
            elif message.HasField("model"):
                header, add = headers.from_message(SPEC, message.model), bool(message.model.base)
                if add:
                    past.remember_nothing(header)
                else:
                    coding.write_zeros(header, held)
                    past.noted.fill(0)
    except (DecodeError, ProtocolError):
        decoded += 1
    assert (past.noted < 16).all()
    return decoded


def coded_block(data: bytes) -> int:
    """Expand an entropy-coded block whose length stands before it, in two bytes."""
    length = int.from_bytes(data[:2], "little")
    with suppress(ValueError):
        assert entropy.expand(data[2:], length).size == length
    return 1


def known_block(data: bytes) -> int:
    """Expand a block of codes by classes; before it stand their number, bits, zero and a seed."""
    count, (bits, zero, seed) = int.from_bytes(data[:2], "little"), (*data[2:5], 0, 0, 0)[:3]
    classes = np.random.default_rng(seed).choice(KNOWN_CLASSES, count)
    with suppress(ValueError):
        codes = given.expand(data[5:], zero, bits, classes)
        assert codes.size == count
        assert not (codes >> bits).any() or bits == 8
    return 1


def archived(data: bytes) -> int:
    """Decode an archive of a header and chunks, with the checksum that belongs to it."""
    decoded, whole = 0, archive.MAGIC + bytes((archive.VERSION,))
    for frame in unframed(data):
        whole += len(frame).to_bytes(4, "little") + frame
        decoded += 1
    with suppress(CodecError):
        found = decode(whole + crc32(whole).to_bytes(4, "little"), max_bytes=ARCHIVE_BYTES)
        values = found.values() if isinstance(found, dict) else [found]
        assert sum(value.nbytes for value in values) <= ARCHIVE_BYTES
    return decoded


def captured(data: bytes) -> int:
    """Show a payload file as `fedaq inspect` does."""
    return _shown("x.payload", data)


def recorded(data: bytes) -> int:
    """Show the file of a run as `fedaq inspect` does."""
    return _shown("x.json", data)


def _shown(name: str, data: bytes) -> int:
    path = _spool() / name
    path.write_bytes(data)
    with console.capture() as shown, suppress(UserError):
        show(path)
    assert "\x1b" not in shown.get(), "a file steers the terminal"
    return 1


def signature(data: bytes) -> int:
    """Read the signature of a model."""
    with suppress(DecodeError, ValueError):
        spec = model.from_message(pb.ModelSignature.FromString(data))
        SPEC.difference(spec)
        _ = spec.parameters, spec.slices
    return 1


# ---- Seeds ------------------------------------------------------------------

_ROUND = 1


def _payloads() -> Iterator[tuple[Payload, bool]]:
    """Yield a payload of every codec and several widths, and whether it is squeezed."""
    ranges = tuple(Range(-0.5, 0.5) for _ in SPEC.tensors)
    for bits in (1, 3, 8, 11, 32):
        widths = (bits,) * len(SPEC.tensors)
        yield payload.plan_payload(SPEC, widths, ranges), bits % 2 == 1
        if bits != 32:
            steps = (2.0**-bits, 0.25, 0.25, 0.25)
            yield payload.plan_payload(SPEC, widths, ranges, steps), True
    yield payload.plan_payload(SPEC, (0, 4, 0, 0), ranges), True


def _coded(
    header: Payload, *, squeeze: bool, known: Given | None = None, brings: Past | None = None
) -> list[chunks.Chunk]:
    # Of little entropy, so that it is squeezed indeed.
    values = np.zeros(SPEC.parameters, np.float32)
    values[::7] = 0.3
    keys = payload.transfer_keys(SPEC, 1, "seed")
    found = []
    for span in header.chunks(CHUNK_BYTES):
        chunk, content = coding.encode(
            header, values.__getitem__, keys, *span, _ROUND, squeeze=squeeze, known=known
        )
        if brings is not None:
            part = given.values_of(header, (piece for piece, _ in content))
            chunk = replace(chunk, past=brings.packed(part))
        found.append(chunk)
    return found


def _past() -> Past:
    return Past(
        (np.arange(SPEC.parameters) % 15 * (np.arange(SPEC.parameters) % 4 == 0)).astype("u1")
    )


def server_seeds() -> list[bytes]:
    """Return whole updates with their joins and reports."""
    spread = pb.TensorRange(lo=-0.5, hi=0.5, deviation=0.3, magnitude=0.25)
    before = [
        pb.ClientMessage(join=pb.Join(client="c", examples=3, model=model.to_message(SPEC))),
        pb.ClientMessage(range_report=pb.RangeReport(round=1, ranges=[spread] * 4)),
    ]
    return [
        framed([
            *(m.SerializeToString() for m in before),
            pb.ClientMessage(update=payload.to_message(header, _ROUND)).SerializeToString(),
            *(chunk.frame(pb.ClientMessage)
              for chunk in _coded(header, squeeze=squeeze, known=known)),
        ])
        for header, squeeze in _payloads()
        for known in (None, ROUNDED)
    ]  # fmt: skip


def client_seeds() -> list[bytes]:
    """Return whole models and differences."""
    return [
        framed([
            pb.ServerMessage(model=payload.to_message(header, _ROUND, base)).SerializeToString(),
            *(chunk.frame(pb.ServerMessage)
              for chunk in _coded(header, squeeze=squeeze, known=known, brings=brings)),
        ])
        for header, squeeze in _payloads()
        for base, known, brings in (
            (b"", None, _past()), (bytes(8), Past.none(SPEC.parameters), None)
        )
    ]  # fmt: skip


def block_seeds() -> list[bytes]:
    """Return blocks of every kind, splits within splits among them."""
    random = np.random.default_rng(1)
    blocks = [
        (random.random(size) < share).astype(np.uint8) * values
        for size in (9, 600, 5000)
        for share in (0.002, 0.05, 0.4)
        for values in (1, 200)
    ]
    blocks += [random.integers(0, 256, 64).astype(np.uint8), np.zeros(0, np.uint8)]
    return [len(b).to_bytes(2, "little") + entropy.compress(b) for b in blocks]


def known_seeds() -> list[bytes]:
    """Return blocks of codes by classes, with what stands before them."""
    random = np.random.default_rng(1)
    found = []
    for count, bits, zero, seed in ((9, 1, 1, 0), (600, 4, 7, 1), (5000, 8, 128, 2)):
        codes = np.clip(zero + np.rint(random.laplace(0, 0.4, count)), 0, 2**bits - 1)
        classes = np.random.default_rng(seed).choice(KNOWN_CLASSES, count)
        block = given.compress(codes.astype(np.uint8), zero, bits, classes)
        found.append(count.to_bytes(2, "little") + bytes((bits, zero, seed)) + block)
    return found


def archive_seeds() -> list[bytes]:
    """Return archives of numpy and torch, quantized and exact."""
    values = np.zeros(3000, np.float32)
    values[::7] = 0.3
    tensors: dict[str, Any] = {
        "a": values,
        "b": torch.arange(40),
        "c": torch.full((9,), 0.5, dtype=torch.bfloat16),
    }
    archives = [
        encode(tensors), encode(tensors, step=0.1, seed=1), encode(tensors, grid_bits=11),
        encode(values, grid_bits=3), encode({}), encode(np.zeros((0, 3), bool)),
    ]  # fmt: skip
    return [framed(_frames(one[len(archive.MAGIC) + 1 : -4])) for one in archives]


def _frames(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : end])
        at = end
    return found


def captured_seeds() -> list[bytes]:
    """Return payload files, and some of the form before chunks were kept."""
    found = []
    for header, squeeze in _payloads():
        file = pb.CapturedPayload(
            model=model.to_message(SPEC), header=payload.to_message(header, _ROUND), sender="c"
        )
        file.chunks.extend(chunk.to_message() for chunk in _coded(header, squeeze=squeeze))
        found.append(file.SerializeToString())
        keys = map(ROUNDED.key_of, range(len(SPEC.tensors)))
        for known, brings in ((ROUNDED, None), (_past(), _past())):
            one = pb.CapturedPayload(model=file.model, header=file.header, sender="c")
            one.chunks.extend(
                chunk.to_message()
                for chunk in _coded(header, squeeze=squeeze, known=known, brings=brings)
            )
            if known is ROUNDED:
                one.keys.extend(key.word0 | key.word1 << 32 for key in keys)
            found.append(one.SerializeToString())
        packed = b"".join(chunk.data for chunk in _coded(header, squeeze=False))
        old = pb.CapturedPayload(model=file.model, header=file.header, codes=packed, sender="c")
        found.append(old.SerializeToString())
    return found


def recorded_seeds() -> list[bytes]:
    """Return the record of a run, short enough to be changed everywhere."""
    entry = {"round": 1, "uplink_bits": 1.5, "downlink_bits": 2}
    summary = {"final_accuracy": 0.5, "energy_j": 0.1, "uplink_payload_bytes": 7,
               "downlink_payload_bytes": 8}  # fmt: skip
    run = {"task": "t", "scheme": "s", "seed": 1, "clients": 2, "parameters": 3,
           "summary": summary, "rounds": [entry]}  # fmt: skip
    return [json.dumps(run).encode()]


def signature_seeds() -> list[bytes]:
    """Return signatures of models."""
    many = ModelSpec(tuple(TensorSpec(f"t{n}", (n,) * (n % 5)) for n in range(20)))
    return [model.to_message(spec).SerializeToString() for spec in (SPEC, many)]


TARGETS = {
    "server": Target(server, server_seeds, pb.ClientMessage, framed=True),
    "client": Target(client, client_seeds, pb.ServerMessage, framed=True),
    "archive": Target(archived, archive_seeds, pb.ServerMessage, framed=True),
    "entropy": Target(coded_block, block_seeds),
    "classes": Target(known_block, known_seeds),
    "inspect": Target(captured, captured_seeds, pb.CapturedPayload),
    "run.json": Target(recorded, recorded_seeds),
    "signature": Target(signature, signature_seeds, pb.ModelSignature),
}
