"""Whole payloads of which both ends know something: in updates, in differences, in any chunks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaq.codec import coding, entropy, holding, payload
from fedaq.codec.chunks import Chunk
from fedaq.codec.given import GIVEN, Dither, Given, Past
from fedaq.codec.given import compress as compress_known
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import RAW, ZERO, Payload, TensorCode
from fedaq.codec.quantizer import Floats, Range
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb

STEP = 0.125
CHUNK_BYTES = st.one_of(st.integers(16, 400), st.sampled_from([1024, 2**20]))
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def codes_of_tensors(draw: st.DrawFn) -> TensorCode:
    """Draw how a tensor is coded: mostly around zero, of as many bits as classes are for."""
    kind = draw(st.sampled_from(["known", "known", "wide", "uniform", "raw", "zero"]))
    if kind in ("known", "wide"):
        bits = draw(st.integers(1, 8) if kind == "known" else st.integers(9, 16))
        return TensorCode(bits, step=STEP, zero=draw(st.integers(0, 2**bits - 1)))
    if kind == "uniform":
        return TensorCode(draw(st.integers(1, 16)), Range(-1.0, 1.0))
    return RAW if kind == "raw" else ZERO


@st.composite
def payloads(draw: st.DrawFn) -> tuple[Payload, Floats]:
    """Draw a payload, and values that are mostly 0 or far from it."""
    codes = draw(st.lists(codes_of_tensors(), min_size=1, max_size=6))
    shapes = [draw(st.one_of(st.just(()), st.integers(0, 900).map(lambda n: (n,)))) for _ in codes]
    spec = ModelSpec(tuple(TensorSpec(f"t{n}", shape) for n, shape in enumerate(shapes)))
    rng = np.random.default_rng(draw(SEEDS))
    scales = np.repeat(rng.choice([0.1, 0.5, 20.0], len(codes)), spec.elements)
    flat = (rng.laplace(0, STEP, spec.parameters) * scales).astype(np.float32)
    return Payload(spec, tuple(codes)), flat


def random_past(parameters: int, seed: int) -> Past:
    """Return what three differences left."""
    rng = np.random.default_rng(seed)
    past = Past.none(parameters)
    code = TensorCode(2, step=STEP, zero=1)
    header = Payload(ModelSpec((TensorSpec("t", (parameters,)),)), (code,))
    for _ in range(3):
        held, codes = (
            np.zeros(parameters, np.float32),
            rng.choice(4, parameters, p=(0.1, 0.7, 0.1, 0.1)),
        )
        chunk = coding.Codes(code, codes.astype(np.uint8), 8, parameters)
        for piece in header.pieces(0, header.code_bytes) if parameters else ():
            holding.add_difference(header, [(piece, chunk)], held, past)
    return past


def known_of(header: Payload, what: str, seed: int) -> Given | None:
    if what == "update":
        return Dither(payload.transfer_keys(header.spec, seed, "uplink", "c", 1).__getitem__)
    return random_past(header.spec.parameters, seed) if what == "difference" else None


def sent(
    header: Payload, flat: Floats, chunk_bytes: int, known: Given | None, *, squeeze: bool = True
) -> list[Chunk]:
    keys = payload.transfer_keys(header.spec, 3, "uplink", "c", 1)
    return [
        coding.encode(
            header, flat.__getitem__, keys, *span, 1,
            squeeze=squeeze, nearest=isinstance(known, Past), known=known,
        )[0]
        for span in header.chunks(chunk_bytes)
    ]  # fmt: skip


def received(header: Payload, chunks: Sequence[Chunk], known: Given | None) -> Floats:
    flat = np.zeros(header.spec.parameters, np.float32)
    for chunk in chunks:
        coding.decode_into(header, chunk, flat, known=known)
    return flat


def kinds_in(header: Payload, chunks: Sequence[Chunk]) -> list[tuple[TensorCode, int]]:
    """Return the codes and the kind of each block."""
    found = []
    for chunk in chunks:
        if not chunk.code_bytes:
            continue
        at = 0
        pieces = header.pieces(chunk.offset, chunk.code_bytes)
        for piece, length in zip(pieces, chunk.coded_bytes, strict=True):
            if length:
                found.append((header.codes[piece.tensor], chunk.data[at]))
            at += length or piece.data.stop - piece.data.start
    return found


@given(payloads(), CHUNK_BYTES, st.sampled_from(["update", "difference", "nothing"]), SEEDS)
@settings(max_examples=150)
def test_values_are_those_of_packed_codes(
    case: tuple[Payload, Floats], chunk_bytes: int, what: str, seed: int
) -> None:
    """Whatever is known of them, in chunks that each stand on their own."""
    header, flat = case
    known = known_of(header, what, seed)
    packed = sent(header, flat, 2**30, known, squeeze=False)
    coded = sent(header, flat, chunk_bytes, known)
    expected = received(header, packed, None)
    np.testing.assert_array_equal(received(header, coded[::-1], known), expected)
    for code, kind in kinds_in(header, coded):
        if kind == GIVEN:
            assert what != "nothing"
            assert code.step and code.bits <= 8
    without = sent(header, flat, chunk_bytes, known, squeeze=False)
    assert not any(chunk.code_bytes for chunk in without)


@pytest.mark.parametrize("what", ["update", "difference"])
def test_what_is_mostly_zero_is_coded_by_classes_and_others_are_not(what: str) -> None:
    code, wide = TensorCode(4, step=STEP, zero=8), TensorCode(9, step=STEP, zero=256)
    codes = (code, wide, TensorCode(4, Range(-1.0, 1.0)), RAW, code, ZERO)
    spec = ModelSpec(tuple(TensorSpec(f"t{n}", (2000,)) for n in range(len(codes))))
    header = Payload(spec, codes)
    rng = np.random.default_rng(1)
    flat = rng.laplace(0, STEP / 4, spec.parameters).astype(np.float32)
    flat[spec.slices[4]] *= 12  # Few of them become 0.
    chunks = sent(header, flat, 2**30, known_of(header, what, 3))
    kinds = kinds_in(header, chunks)
    assert kinds[0] == (code, GIVEN)
    assert all(kind != GIVEN for _, kind in kinds[1:])


def test_knowing_the_rounding_takes_fewer_bytes() -> None:
    header = Payload(ModelSpec((TensorSpec("t", (50_000,)),)), (TensorCode(4, step=STEP, zero=8),))
    flat = np.random.default_rng(1).laplace(0, STEP / 20, 50_000).astype(np.float32)
    known = Dither(payload.transfer_keys(header.spec, 3, "uplink", "c", 1).__getitem__)
    costs = [
        sum(chunk.cost_bytes for chunk in sent(header, flat, 2**20, what)) for what in (known, None)
    ]
    assert costs[0] < 0.7 * costs[1]


# ---- Where codes by classes cannot be ---------------------------------------------

COUNT = 64
BLOCK = compress_known(np.full(COUNT, 3, np.uint8), 3, 4, np.zeros(COUNT, np.uint8))
INSIDE = bytes((3, 0)) + (len(BLOCK)).to_bytes(3, "little") + BLOCK + b"\0"
KNOWN = TensorCode(4, step=STEP, zero=3)


def refused(code: TensorCode, data: bytes, *, known: bool = True) -> str:
    header = Payload(ModelSpec((TensorSpec("t", (COUNT,)),)), (code,))
    chunk = Chunk(1, 0, data, header.code_bytes, (len(data),))
    with pytest.raises(ProtocolError) as caught:
        coding.decode(header, chunk, Past.none(COUNT) if known else None)
    assert caught.value.reason == pb.REFUSAL_REASON_BROKEN_CODE
    return str(caught.value)


def test_the_block_itself_is_one() -> None:
    header = Payload(ModelSpec((TensorSpec("t", (COUNT,)),)), (KNOWN,))
    chunk = Chunk(1, 0, BLOCK, header.code_bytes, (len(BLOCK),))
    assert BLOCK[0] == GIVEN
    assert not received(header, [chunk], Past.none(COUNT)).any()


@pytest.mark.parametrize(
    "code",
    [
        TensorCode(4, Range(-1.0, 1.0)),
        TensorCode(9, step=STEP, zero=3),
        TensorCode(16, step=STEP, zero=3),
        RAW,
    ],
)
def test_other_codes_have_no_classes(code: TensorCode) -> None:
    assert "tensor t: " in refused(code, BLOCK)
    assert "tensor t: " in refused(code, BLOCK + bytes(60))


def test_without_anything_known_there_are_no_classes() -> None:
    assert "kind 4" in refused(KNOWN, BLOCK, known=False)


def test_codes_by_classes_stand_in_no_other_block() -> None:
    refused(KNOWN, INSIDE)
    refused(KNOWN, BLOCK + bytes(9))


@given(payloads(), CHUNK_BYTES, st.sampled_from(["update", "difference"]), st.data())
def test_damaged_chunks_are_refused_or_are_codes(
    case: tuple[Payload, Floats], chunk_bytes: int, what: str, data: st.DataObject
) -> None:
    header, flat = case
    known = known_of(header, what, 3)
    for chunk in sent(header, flat, chunk_bytes, known):
        if not chunk.code_bytes:
            continue
        damaged = bytearray(chunk.data)
        at = data.draw(st.integers(0, 8 * len(damaged) - 1))
        damaged[at // 8] ^= 1 << at % 8
        try:
            content = coding.decode(header, replace(chunk, data=bytes(damaged)), known)
        except ProtocolError as error:
            assert error.reason == pb.REFUSAL_REASON_BROKEN_CODE
            continue
        for _, codes in content:
            assert codes.code.bits == 32 or codes.packed().size


# ---- The past as it travels -------------------------------------------------------


@given(st.integers(0, 3000), st.integers(0, 3000), SEEDS)
def test_a_past_comes_back_as_it_was(parameters: int, start: int, seed: int) -> None:
    past = random_past(parameters, seed)
    part = slice(min(start, parameters), parameters)
    other = Past(np.full(parameters, 7, np.uint8))
    other.unpack(part, past.packed(part))
    assert other.noted[part].tolist() == past.noted[part].tolist()
    assert (other.noted[: part.start] == 7).all()


def test_nothing_takes_nothing() -> None:
    past = Past.none(1000)
    assert past.packed(slice(0, 1000)) == b""
    past.noted[999] = 3
    assert past.packed(slice(0, 999)) == b""
    assert past.packed(slice(0, 1000)) != b""


@given(st.integers(0, 400), st.binary(min_size=1, max_size=60))
def test_a_past_of_any_bytes_is_refused_or_is_one(parameters: int, data: bytes) -> None:
    past = Past(np.full(parameters + 16, 7, np.uint8))
    try:
        past.unpack(slice(0, parameters), data)
    except ValueError:
        pass
    else:
        assert (past.noted[:parameters] < 16).all()
    assert (past.noted[parameters:] == 7).all()


@pytest.mark.parametrize(
    "data", [b"\4", BLOCK, b"\0", bytes(60), entropy.compress(np.ones(99, np.uint8))]
)
def test_a_broken_past_is_refused(data: bytes) -> None:
    header = Payload(ModelSpec((TensorSpec("t", (100,)),)), (RAW,))
    chunk = Chunk(1, 0, bytes(400), past=data)
    with pytest.raises(ProtocolError, match="past: ") as caught:
        holding.decode_whole(header, chunk, np.zeros(100, np.float32), Past.none(100))
    assert caught.value.reason == pb.REFUSAL_REASON_BROKEN_CODE


def test_tensors_without_steps_move_on_as_by_zero_and_a_difference_of_nothing_moves_none() -> None:
    spec = ModelSpec((TensorSpec("a", (3,)), TensorSpec("b", (2,))))
    past = Past(np.array([1, 4, 5, 2, 3], np.uint8))
    past.remember_nothing(Payload(spec, (ZERO, ZERO)))
    assert past.noted.tolist() == [1, 4, 5, 2, 3]
    past.remember_nothing(Payload(spec, (KNOWN, RAW)))
    assert past.noted.tolist() == [1, 4, 5, 5, 10]
