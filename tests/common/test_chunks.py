"""Chunks as they travel: nothing is lost, none is longer than packed, none that lies is believed.

Broken chunks are made by changing good ones.
"""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

import packed_codes
from fedaq.codec import chunks, entropy, payload
from fedaq.codec.chunks import Chunk
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import RAW_BITS, Floats, value_range
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb

Reason = pb.RefusalReason

SIZES = st.one_of(st.just(0), st.integers(1, 40), st.integers(200, 4000))
CHUNK_BYTES = st.one_of(st.integers(16, 64), st.sampled_from([1024, 4096, 2**20]))
# Bits of a range, raw, nothing sent, or a step in deviations.
CODINGS = st.one_of(st.integers(1, 16), st.just(RAW_BITS), st.just(0), st.floats(2.0**-12, 2.0**4))


@dataclass(frozen=True)
class Packed:
    """A payload and its packed code bytes."""

    header: Payload
    codes: bytes

    def chunks(self, chunk_bytes: int) -> list[Chunk]:
        """Return the entropy-coded chunks as they come out of the wire."""
        return [
            parsed
            for offset, length in self.header.chunks(chunk_bytes)
            for sent in [
                packed_codes.to_chunk(
                    self.header, 7, offset, self.codes[offset : offset + length], squeeze=True
                )
            ]
            for parsed in [chunks.parse(message(sent), pb.ClientMessage)]
            if isinstance(parsed, Chunk)
        ]


Envelope = type[pb.ClientMessage] | type[pb.ServerMessage]


def message(chunk: Chunk) -> bytes:
    return chunk.frame(pb.ClientMessage)


def packed(flats: list[Floats], codings: list[float]) -> Packed:
    """Code tensors in whole bits over their range, or with steps where a coding is a float."""
    spec = ModelSpec(tuple(TensorSpec(f"t{i}", (f.size,)) for i, f in enumerate(flats)))
    stepped = [isinstance(coding, float) for coding in codings]
    header = payload.plan_payload(
        spec,
        tuple(8 if s else int(c) for s, c in zip(stepped, codings, strict=True)),
        [value_range(flat) for flat in flats],
        tuple(c if s else 0.0 for s, c in zip(stepped, codings, strict=True)),
    )
    keys = payload.transfer_keys(spec, 1, "test")
    flat = np.concatenate(flats)
    codes = [
        packed_codes.encode_chunk(header, flat.__getitem__, keys, offset, length)
        for offset, length in header.chunks(2**20)
    ]
    return Packed(header, b"".join(codes))


def gaussian(size: int, seed: int, outlier: float = 0.0) -> Floats:
    values = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    if outlier and size > 1:
        values[:2] = -outlier, outlier
    return values


@st.composite
def payloads(draw: st.DrawFn) -> Packed:
    """Draw tensors from dense to nearly all in one code, coded in all ways there are."""
    sizes = draw(st.lists(SIZES, min_size=1, max_size=5))
    outliers = st.sampled_from([0.0, 10.0, 1000.0])
    seed = draw(st.integers(0, 2**32 - 8))
    return packed(
        [gaussian(size, seed + i, draw(outliers)) for i, size in enumerate(sizes)],
        [draw(CODINGS) for _ in sizes],
    )


# ---- The bytes of a message ----------------------------------------------------

CHUNKS = st.builds(
    Chunk,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=300),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
)
ENVELOPES = st.sampled_from([pb.ClientMessage, pb.ServerMessage])


def as_protobuf(chunk: Chunk) -> pb.Chunk:
    return pb.Chunk(
        round=chunk.round,
        offset=chunk.offset,
        data=bytes(chunk.data),
        code_bytes=chunk.code_bytes,
        coded_bytes=chunk.coded_bytes,
    )


@given(CHUNKS, ENVELOPES)
def test_a_chunk_has_the_bytes_that_protobuf_gives_it(chunk: Chunk, envelope: Envelope) -> None:
    assert chunk.frame(envelope) == envelope(chunk=as_protobuf(chunk)).SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 2**14 - 1, 2**14, 2**20])
def test_chunks_of_all_lengths_come_back_without_a_copy(size: int) -> None:
    chunk = Chunk(3, 2**34, bytes(size), 2 * size, (size, 0))
    frame = message(chunk)
    parsed = chunks.parse(frame, pb.ClientMessage)
    assert parsed == chunk
    assert isinstance(parsed, Chunk)
    assert size == 0 or (isinstance(parsed.data, memoryview) and parsed.data.obj is frame)


@st.composite
def odd_frames(draw: st.DrawFn) -> bytes:
    """Draw chunks whose fields come in any order, twice, unknown ones among them, then spoilt."""
    pieces = [
        part.SerializeToString()
        for chunk in draw(st.lists(CHUNKS, min_size=1, max_size=2))
        for part in (
            pb.Chunk(round=chunk.round),
            pb.Chunk(offset=chunk.offset),
            pb.Chunk(data=bytes(chunk.data)),
            pb.Chunk(code_bytes=chunk.code_bytes),
            pb.Chunk(coded_bytes=chunk.coded_bytes),
            pb.RangeReport(holds=b"unknown"),
        )
    ]
    # What protobuf does not write: an empty field, and a length in more bytes than it takes.
    pieces += [b"\x1a\0", b"\x1a\x83\0abc", b"\x1a\x83\x80\x80\x80\x80\0abc", b"\x08\0"]
    kept = draw(st.lists(st.sampled_from(pieces), max_size=6))
    ordered = kept if draw(st.booleans()) else sorted(kept)
    inner = b"".join(ordered)
    start = chunks._field_start(4, len(inner))
    if draw(st.booleans()):
        start = (
            start[:-1]
            + bytes([start[-1] | 0x80])
            + draw(st.sampled_from([b"\0", b"\x80\0", b"\x80\x80\x80\0", b"\x80" * 4 + b"\0"]))
        )
    frame = bytearray(start + inner)
    for _ in range(draw(st.integers(0, 2))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame + draw(st.sampled_from([b"", b"\0", b"\x2a\0", bytes(frame)])))


@given(odd_frames() | st.binary(max_size=40), ENVELOPES)
def test_any_bytes_are_read_as_protobuf_reads_them(frame: bytes, envelope: Envelope) -> None:
    try:
        whole = envelope.FromString(frame)
    except DecodeError:
        with pytest.raises(DecodeError):
            chunks.parse(frame, envelope)  # type: ignore[type-var]
        return
    parsed = chunks.parse(frame, envelope)  # type: ignore[type-var]
    assert chunks.kind_of(parsed) == whole.WhichOneof("kind")
    if isinstance(parsed, Chunk):
        assert parsed == chunks.read(whole.chunk)
    else:
        assert parsed == whole


# ---- What is right -----------------------------------------------------------


@given(payloads(), CHUNK_BYTES)
def test_what_is_sent_comes_back(sent: Packed, chunk_bytes: int) -> None:
    coded = sent.chunks(chunk_bytes)
    assert b"".join(packed_codes.codes_of(sent.header, chunk) for chunk in coded) == sent.codes
    offset = 0
    for chunk in coded:
        assert chunk.offset == offset
        offset += chunk.size


@given(payloads(), CHUNK_BYTES)
def test_no_chunk_is_longer_than_packed(sent: Packed, chunk_bytes: int) -> None:
    for chunk, (_, length) in zip(
        sent.chunks(chunk_bytes), sent.header.chunks(chunk_bytes), strict=True
    ):
        plain = Chunk(chunk.round, chunk.offset, bytes(length))
        assert chunk.cost_bytes <= plain.cost_bytes == length
        # What is charged is what the message grows by, but for the lengths of its data and its own.
        saved = len(message(plain)) - len(message(chunk))
        assert saved == pytest.approx(length - chunk.cost_bytes, abs=6)
        assert saved >= 0


@given(payloads(), CHUNK_BYTES)
def test_each_chunk_is_decoded_on_its_own(sent: Packed, chunk_bytes: int) -> None:
    for chunk in reversed(sent.chunks(chunk_bytes)):
        codes = packed_codes.codes_of(sent.header, chunk)
        assert codes == sent.codes[chunk.offset : chunk.offset + len(codes)]


@given(payloads())
def test_without_entropy_coding_chunks_are_what_they_were(sent: Packed) -> None:
    for offset, length in sent.header.chunks(2**20):
        codes = sent.codes[offset : offset + length]
        chunk = packed_codes.to_chunk(sent.header, 3, offset, codes, squeeze=False)
        assert chunk == Chunk(3, offset, codes)
        assert packed_codes.codes_of(sent.header, chunk) == codes


def shannon_bytes(codes: bytes, bits: int, values: int) -> float:
    """Return the empirical entropy of packed codes."""
    stream = np.unpackbits(np.frombuffer(codes, np.uint8), count=bits * values, bitorder="little")
    counts = np.bincount(stream.reshape(values, bits) @ (1 << np.arange(bits)))
    shares = counts[counts > 0] / values
    return float(-shares @ np.log2(shares)) * values / 8


def excess(sent: Packed) -> float:
    """Return by how much the chunks of one tensor are longer than the entropy of its codes."""
    [bits], [values] = sent.header.bits, sent.header.spec.elements
    taken = sum(chunk.cost_bytes for chunk in sent.chunks(2**17))
    return taken / shannon_bytes(sent.codes, bits, values) - 1


MANY = 150_001


# In deviations; an outlier stretches the range.
@pytest.mark.parametrize("outlier", [0.0, 5.0, 8.0])
@pytest.mark.parametrize("bits", range(1, 9))
def test_gaussian_codes_take_at_most_three_percent_more_than_their_entropy(
    bits: int, outlier: float
) -> None:
    assert 0 <= excess(packed([gaussian(MANY, bits, outlier)], [bits])) <= 0.03


@pytest.mark.parametrize("outlier", [16.0, 30.0, 200.0])
@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_which_an_outlier_leaves_two_cost_little_more(bits: int, outlier: float) -> None:
    """All values lie between the two codes in the middle: up to 6 % were measured."""
    assert 0 <= excess(packed([gaussian(MANY, bits, outlier)], [bits])) <= 0.065


@pytest.mark.parametrize("step", [2.0 ** (k / 2) for k in range(-8, 7)])
def test_codes_around_zero_take_at_most_three_percent_more_than_their_entropy(
    step: float,
) -> None:
    assert 0 <= excess(packed([gaussian(MANY, 1)], [step])) <= 0.03


@pytest.mark.parametrize("step", [12.0, 16.0, 24.0])
def test_codes_that_are_nearly_all_zero_cost_little_more(step: float) -> None:
    """A quarter of a bit a value and more; up to 4 % were measured."""
    assert 0 <= excess(packed([gaussian(MANY, 1)], [step])) <= 0.045


# ---- What lies ---------------------------------------------------------------

# One chunk with tensors of all kinds, all but the raw and the tiny one entropy-coded.
MIXED = packed(
    [gaussian(3000, 1, 20.0), gaussian(10, 2), gaussian(0, 3), gaussian(3000, 4, 20.0),
     gaussian(40, 5), gaussian(5000, 6, 50.0), gaussian(100, 7)],
    [4, RAW_BITS, 3, 12, 0, 0.9, 2],
)  # fmt: skip
[_VIEW] = MIXED.chunks(2**20)
DATA = bytes(_VIEW.data)
CHUNK = replace(_VIEW, data=DATA)
FIRST, RAW_PIECE, WIDE, STEPPED, TINY = range(5)


def lengths(change: Callable[[list[int]], object]) -> Chunk:
    coded = list(CHUNK.coded_bytes)
    change(coded)
    return replace(CHUNK, coded_bytes=tuple(coded))


def replaced(number: int, value: int) -> Chunk:
    return lengths(lambda coded: coded.__setitem__(number, value))


@contextmanager
def little_memory(chunk: Chunk) -> Iterator[None]:
    """Allow a small multiple of the packed codes and the data, whatever the chunk claims."""
    allowed = 20 * len(MIXED.codes) + 3 * len(chunk.data)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < allowed
    finally:
        tracemalloc.stop()


def test_the_chunk_that_is_broken_below_is_right_and_has_all_kinds() -> None:
    assert packed_codes.codes_of(MIXED.header, CHUNK) == MIXED.codes
    coded = list(CHUNK.coded_bytes)
    assert len(coded) == 5
    assert [bool(c) for c in coded] == [True, False, True, True, False]


SIZE, SHAPE, BROKEN = (
    pb.REFUSAL_REASON_WRONG_SIZE,
    pb.REFUSAL_REASON_WRONG_SHAPE,
    pb.REFUSAL_REASON_BROKEN_CODE,
)
LIES: dict[str, tuple[Chunk, Reason, str]] = {
    "a length missing": (lengths(list.pop), SHAPE, "has 4 lengths for 5 tensors"),
    "no lengths": (lengths(list.clear), SHAPE, "has 0 lengths for 5 tensors"),
    "a length too many": (lengths(lambda c: c.append(0)), SHAPE, "6 lengths for 5"),
    "very many lengths": (lengths(lambda c: c.extend([0] * 10**5)), SHAPE, "100005 lengths for 5"),
    "the lengths of others": (lengths(list.reverse), BROKEN, "tensor t1: raw values"),
    "a huge length": (replaced(FIRST, 2**32 - 1), SIZE, "ends in the codes of tensor t0"),
    "a huge length at the end": (replaced(TINY, 2**32 - 1), SIZE, "codes of tensor t6"),
    "a length one too short": (
        replaced(FIRST, CHUNK.coded_bytes[FIRST] - 1), BROKEN, "tensor t0: coded block"),
    "a length one too long": (
        replaced(FIRST, CHUNK.coded_bytes[FIRST] + 1), BROKEN, "tensor t0: coded block"),
    "coded codes said to be packed": (replaced(FIRST, 0), BROKEN, "tensor t3: coded block"),
    "packed codes said to be coded": (replaced(TINY, 25), BROKEN, "tensor t6: coded block"),
    "raw values said to be coded": (
        replaced(RAW_PIECE, 40), BROKEN, "tensor t1: raw values cannot be entropy-coded"),
    "a length of one byte": (replaced(WIDE, 1), BROKEN, "tensor t3: coded block"),
    "huge code bytes": (replace(CHUNK, code_bytes=2**32 - 1), SIZE, "does not fit a payload"),
    "code bytes one too many": (
        replace(CHUNK, code_bytes=len(MIXED.codes) + 1), SIZE, "does not fit a payload"),
    "code bytes of a group less": (
        replace(CHUNK, code_bytes=len(MIXED.codes) - 1), SIZE, "has 1 bytes too many"),
    "code bytes of half a group less": (
        replace(CHUNK, code_bytes=len(MIXED.codes) - 2), SIZE, "splits a group of values of"),
    "code bytes of fewer tensors": (
        replace(CHUNK, code_bytes=MIXED.header.starts[6]), SHAPE, "5 lengths for 4 tensors"),
    "another place": (replace(CHUNK, offset=4), SIZE, "does not fit a payload"),
    "a place far away": (replace(CHUNK, offset=2**64 - 1), SIZE, "does not fit a payload"),
    "no data": (replace(CHUNK, data=b""), SIZE, "ends in the codes of tensor t0"),
    "data cut short": (
        replace(CHUNK, data=CHUNK.data[:-1]), SIZE, "ends in the codes of tensor t6"),
    "data in the middle cut": (
        replace(CHUNK, data=DATA[:100] + DATA[101:]), BROKEN, "coded block"),
    "data that goes on": (replace(CHUNK, data=DATA + b"\0"), SIZE, "has 1 bytes too many"),
    "much data that goes on": (
        replace(CHUNK, data=DATA + bytes(10**6)), SIZE, "has 1000000 bytes too many"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_chunk_that_lies_is_refused_with_the_reason(name: str) -> None:
    chunk, reason, said = LIES[name]
    with little_memory(chunk), pytest.raises(ProtocolError, match=said) as caught:
        packed_codes.codes_of(MIXED.header, chunk)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [4, 12])
def test_a_small_chunk_that_expands_to_far_more_is_refused(width: int) -> None:
    """What is in the data may be a frame of many megabytes, whatever the codes should be."""
    values = np.zeros(2**22, np.uint8)
    bomb = entropy.compress(values)
    assert len(bomb) < 200
    sent = packed([gaussian(1000, 1)], [width])
    data = bomb if width <= 8 else len(bomb).to_bytes(3, "little") + bomb + bomb
    chunk = Chunk(0, 0, data, len(sent.codes), (len(data),))
    with little_memory(chunk), pytest.raises(ProtocolError, match="coded block") as caught:
        packed_codes.codes_of(sent.header, chunk)
    assert caught.value.reason == BROKEN


@given(st.data())
def test_a_corrupted_chunk_is_refused_or_has_the_right_length(data: st.DataObject) -> None:
    """No checksum tells changed codes, but they are codes, of the right tensors."""
    spoilt = bytearray(CHUNK.data)
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    chunk = replace(CHUNK, data=bytes(spoilt))
    with little_memory(chunk):
        check_refused_or_right(MIXED.header, chunk)


@given(
    st.binary(max_size=200),
    st.integers(0, 2**32 - 1) | st.sampled_from(MIXED.header.starts),
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 60), max_size=7),
    st.sampled_from([0, *MIXED.header.starts]) | st.integers(0, 2**64 - 1),
)
def test_any_chunk_is_refused_or_has_the_right_length(
    data: bytes, code_bytes: int, coded: list[int], offset: int
) -> None:
    chunk = Chunk(0, offset, data, code_bytes, tuple(coded))
    with little_memory(chunk):
        check_refused_or_right(MIXED.header, chunk)


def check_refused_or_right(header: Payload, chunk: Chunk) -> None:
    try:
        codes = packed_codes.codes_of(header, chunk)
    except ProtocolError as error:
        assert error.reason in (SIZE, SHAPE, BROKEN)
    else:
        assert len(codes) == chunk.size


def test_codes_never_leave_their_range() -> None:
    """Three bits travel as four, of which a sender may set the fourth."""
    sent = packed([gaussian(1600, 1)], [3])
    block = entropy.compress(np.full(800, 0xFF, np.uint8))
    chunk = Chunk(0, 0, block, len(sent.codes), (len(block),))
    flat = np.empty(1600, np.float32)
    packed_codes.decode_chunk(sent.header, 0, packed_codes.codes_of(sent.header, chunk), flat)
    bounds = sent.header.codes[0].bounds
    assert bounds is not None
    assert flat.min() >= bounds.lo
    assert flat.max() <= np.nextafter(np.float32(bounds.hi), np.float32(np.inf))
